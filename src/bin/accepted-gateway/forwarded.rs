//! Names the client to the upstream: `X-Forwarded-*` and `Forwarded` (RFC 7239).

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, HOST},
};

use crate::{list::append, peer::Peer};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The trust in received fields that name a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardedTrust {
    /// Any client may have written them.
    Replace,
    /// A proxy in front of the gateway has written them.
    Extend,
}

impl ForwardedTrust {
    /// Writes the fields for the upstream. `peer` is the other end of the client's connection.
    pub(crate) fn rewrite(self, headers: &mut HeaderMap, peer: Option<Peer>) {
        match self {
            Self::Replace => {
                // Each hop appends the address it saw, so only the last entry is from this gateway.
                append_address(headers, peer);
                // Replaced, not appended: these are no lists, and a client can claim anything.
                headers.remove(FORWARDED);
                headers.remove(X_FORWARDED_HOST);
                headers.remove(X_FORWARDED_PROTO);
                add_missing(headers);
            }
            Self::Extend => {
                let is_standard = headers.contains_key(FORWARDED);
                if is_standard {
                    let element = element(headers.get(HOST), peer);
                    append(headers, FORWARDED, &element);
                }
                let is_customary = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO]
                    .iter()
                    .any(|name| headers.contains_key(name));
                // A chain that begins here, beside a longer one, would name the proxy as client.
                if is_customary || !is_standard {
                    append_address(headers, peer);
                    add_missing(headers);
                }
            }
        }
    }
}

fn append_address(headers: &mut HeaderMap, peer: Option<Peer>) {
    if let Some(Peer(client)) = peer {
        append(headers, X_FORWARDED_FOR, &client.to_canonical().to_string());
    }
}

/// Adds the host and the scheme of the client's request, unless a proxy has named them.
fn add_missing(headers: &mut HeaderMap) {
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
}

/// Returns this hop's element of `Forwarded`.
fn element(host: Option<&HeaderValue>, peer: Option<Peer>) -> String {
    let client = match peer.map(|Peer(client)| client.to_canonical()) {
        Some(IpAddr::V4(client)) => format!("for={client};"),
        Some(IpAddr::V6(client)) => format!("for=\"[{client}]\";"),
        None => String::new(),
    };
    // Quoted for its colon. A valid `Host` has neither quotes nor backslashes.
    let host = match host.and_then(|host| host.to_str().ok()) {
        Some(host) => format!("host=\"{host}\";"),
        None => String::new(),
    };
    format!("{client}{host}proto=http")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_quotes_what_is_no_token() {
        let host = HeaderValue::from_static("shop.example:81");
        for (client, node) in [
            ("192.0.2.1", "for=192.0.2.1"),
            ("::ffff:192.0.2.1", "for=192.0.2.1"),
            ("2001:db8::1", "for=\"[2001:db8::1]\""),
        ] {
            let peer = Peer(client.parse().expect("an address"));
            assert_eq!(
                element(Some(&host), Some(peer)),
                format!("{node};host=\"shop.example:81\";proto=http")
            );
        }
    }
}
