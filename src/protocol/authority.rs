//! Checks the authority of a URI (RFC 3986 §3.2).

use http::{Uri, uri::Authority};

/// Returns `true` if a URI's authority names a host, no user, and no impossible port.
pub(crate) fn has_valid_authority(uri: &Uri) -> bool {
    uri.authority().is_some_and(is_valid)
}

/// [`Authority`] accepts any text as a port, and has no port then. A client would connect to the
/// default port of the scheme, which can be another server.
fn is_valid(authority: &Authority) -> bool {
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host);
    let port = port.and_then(|rest| match rest.strip_prefix(':') {
        Some(port) => Some(port),
        None => rest.is_empty().then_some(rest),
    });
    // `u16::from_str` also accepts a plus sign.
    !host.is_empty()
        && port.is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && (port.is_empty() || port.parse::<u16>().is_ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_are_valid() {
        for valid in [
            "a",
            "a:80",
            "a:65535",
            "a:",
            "[::1]",
            "[::1]:8080",
            "127.0.0.1:1",
        ] {
            let uri = format!("http://{valid}/").parse().expect("a URI");
            assert!(has_valid_authority(&uri), "{valid}");
        }
        for invalid in [
            "a:99999", "a:65536", "a:+80", "a:8o", "u@a", "u:p@a:80", ":80", "a:1:2",
        ] {
            let uri = format!("http://{invalid}/").parse::<Uri>();
            assert!(!uri.is_ok_and(|uri| has_valid_authority(&uri)), "{invalid}");
        }
        assert!(!has_valid_authority(&Uri::from_static("/jobs")));
    }
}
