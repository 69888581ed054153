//! The fields of a request that the layer reads.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{accept::Format, prefer::Prefer};

/// The fields of a request that the layer reads.
///
/// Most requests have none or one of them. One pass over the names that are present costs less than
/// a look-up for each name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestHeaders {
    has_accept: bool,
    pub(crate) has_idempotency_key: bool,
    has_prefer: bool,
    /// Set if the request has a condition, such as `If-Match`.
    pub(crate) is_conditional: bool,
    is_bidirectional: bool,
}

impl RequestHeaders {
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "accept" => found.has_accept = true,
                "idempotency-key" => found.has_idempotency_key = true,
                "prefer" => found.has_prefer = true,
                "content-type" => {
                    found.is_bidirectional |= value.as_bytes().starts_with(b"application/grpc");
                }
                "upgrade" => found.is_bidirectional |= upgrades_protocol(value),
                name => found.is_conditional |= name.starts_with("if-"),
            }
        }
        found
    }

    /// Returns the format that the request prefers. `headers` are its fields.
    #[inline]
    pub(crate) fn format(&self, headers: &HeaderMap) -> Format {
        if self.has_accept {
            Format::preferred(headers)
        } else {
            Format::Json
        }
    }

    /// Returns the request's preferences, with a wait of at most `max_wait`. `headers` are its
    /// fields.
    #[inline]
    pub(crate) fn prefer(&self, headers: &HeaderMap, max_wait: Duration) -> Prefer {
        if self.has_prefer {
            Prefer::from_headers(headers, max_wait)
        } else {
            Prefer::default()
        }
    }

    /// Returns `true` for gRPC and protocol upgrades, which a stored response cannot replace.
    pub(crate) fn is_bidirectional(&self) -> bool {
        self.is_bidirectional
    }
}

/// Returns `true` if `Upgrade` names a protocol other than HTTP/2.
///
/// Java's client and `curl --http2` offer `h2c` with their first request over plain TCP. The offer
/// is deprecated (RFC 9113 §3.1), and most servers ignore it.
fn upgrades_protocol(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|protocol| !protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::{
        super::names::{IDEMPOTENCY_KEY, PREFER},
        *,
    };

    #[test]
    fn each_field_is_found_by_its_name() {
        for (name, expected) in [
            (header::ACCEPT, (true, false, false)),
            (IDEMPOTENCY_KEY, (false, true, false)),
            (PREFER, (false, false, true)),
            (header::HOST, (false, false, false)),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
            let found = RequestHeaders::new(&headers);
            assert_eq!(
                (
                    found.has_accept,
                    found.has_idempotency_key,
                    found.has_prefer
                ),
                expected
            );
        }
    }

    #[test]
    fn offer_of_http_2_is_not_an_upgrade() {
        for (offer, is_upgrade) in [
            ("h2c", false),
            ("H2C , h2c", false),
            ("websocket", true),
            ("h2c, websocket", true),
        ] {
            let offer = HeaderValue::from_static(offer);
            assert_eq!(upgrades_protocol(&offer), is_upgrade, "{offer:?}");
        }
    }
}
