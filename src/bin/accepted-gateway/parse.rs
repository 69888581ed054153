//! Parses the values of flags, with the checks of the builder.

use http::{
    HeaderName, HeaderValue, Uri,
    header::{CONTENT_LENGTH, HOST},
    uri::Authority,
};
use tower_accepted::{Jobs, Links};

use crate::headers::HOP_BY_HOP;

/// Parses an origin. Rejects the other parts of a URL, which the gateway would silently ignore.
pub(crate) fn upstream(text: &str) -> Result<Authority, String> {
    let url: Option<Uri> = text.parse().ok();
    let error = match url.as_ref().and_then(Uri::scheme_str) {
        Some("https") => "TLS is not supported, only http://",
        Some("http") if has_user(text) => "a user and a password are not supported",
        Some("http") => match origin(text) {
            Some(origin) => return Ok(origin),
            None if public_base(text).is_ok() => "a path is not supported: requests keep their own",
            None if text.contains('?') => "a path is not supported: requests keep their own",
            None => "expected http://HOST[:PORT]",
        },
        _ => "expected http://HOST[:PORT]",
    };
    Err(error.to_owned())
}

/// Parses the name of the header that names owners.
pub(crate) fn owner_header(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| "expected the name of a header")?;
    if name == HOST || name == CONTENT_LENGTH || HOP_BY_HOP.contains(&name) {
        return Err("expected a header that identifies a user".to_owned());
    }
    Ok(name)
}

/// Parses a number that is not 0.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("0 is not in 1..".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Parses the base of links.
pub(crate) fn public_base(text: &str) -> Result<String, String> {
    let links = Links::Base(text.to_owned());
    match Jobs::builder().links(links).try_build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses the path of the monitor.
pub(crate) fn path(text: &str) -> Result<String, String> {
    match Jobs::builder().monitor_path(text).try_build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a path to put in front of others, and returns the root as the empty string.
pub(crate) fn path_prefix(text: &str) -> Result<String, String> {
    if text == "/" {
        Ok(String::new())
    } else {
        path(text).map_err(|_| "expected / or a path like /internal".to_owned())
    }
}

/// Parses an origin as a browser sends it in `Origin`, or `*`.
pub(crate) fn cors_origin(text: &str) -> Result<HeaderValue, String> {
    let expected = "expected * or http(s)://HOST[:PORT]";
    if text == "*" {
        return Ok(HeaderValue::from_static("*"));
    }
    // A browser names one host, so a pattern would never match.
    let authority = origin(text).filter(|authority| !authority.host().contains('*'));
    let authority = authority.ok_or(expected)?;
    let scheme = text.split("://").next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = authority.port_u16().filter(|&port| port != default_port);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let host = authority.host().to_ascii_lowercase();
    HeaderValue::try_from(format!("{scheme}://{host}{port}")).map_err(|_| expected.to_owned())
}

/// Returns the authority of a URL that has nothing else, with a scheme of HTTP.
fn origin(text: &str) -> Option<Authority> {
    public_base(text).ok()?;
    let parts = text.parse::<Uri>().ok()?.into_parts();
    let has_path = parts.path_and_query.is_some_and(|path| path != "/");
    parts.authority.filter(|_| !has_path)
}

fn has_user(text: &str) -> bool {
    let authority = text.split('/').nth(2);
    authority.is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cors_origin_is_what_a_browser_sends() {
        for (text, origin) in [
            ("*", "*"),
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.example:443/", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
        ] {
            assert_eq!(cors_origin(text).expect(text), origin);
        }
        for text in [
            "null",
            "app.example",
            "https://a/b",
            "https://a:99999",
            "https://*.a",
        ] {
            assert!(cors_origin(text).is_err(), "{text}");
        }
    }
}
