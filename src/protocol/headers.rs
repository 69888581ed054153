//! Finds the header fields of a request that the layer reads.

use http::{HeaderMap, HeaderValue};

/// The fields in a request's head that the layer reads.
///
/// Most requests have at most one of them. One pass over the names costs less than a look-up for
/// each field.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mentions {
    pub(crate) accept: bool,
    pub(crate) idempotency_key: bool,
    pub(crate) prefer: bool,
    /// Set if the exchange is more than one message each way. It cannot become a job.
    pub(crate) dialogue: bool,
}

impl Mentions {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut mentions = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "accept" => mentions.accept = true,
                "idempotency-key" => mentions.idempotency_key = true,
                "prefer" => mentions.prefer = true,
                "content-type" => {
                    mentions.dialogue |= value.as_bytes().starts_with(b"application/grpc");
                }
                "upgrade" => mentions.dialogue |= asks_for_another_protocol(value),
                _ => {}
            }
        }
        mentions
    }
}

/// Returns whether `Upgrade` names a protocol other than `h2c`.
///
/// Java's client and `curl --http2` offer `h2c` with their first request over plain TCP. It is the
/// same request in another framing, deprecated (RFC 9113 §3.1) and ignored by most servers.
fn asks_for_another_protocol(line: &HeaderValue) -> bool {
    line.as_bytes()
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
        for (name, known) in [
            (header::ACCEPT, (true, false, false)),
            (IDEMPOTENCY_KEY, (false, true, false)),
            (PREFER, (false, false, true)),
            (header::HOST, (false, false, false)),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
            let mentions = Mentions::of(&headers);
            assert_eq!(
                (mentions.accept, mentions.idempotency_key, mentions.prefer),
                known
            );
        }
    }

    #[test]
    fn offer_of_h2c_is_not_another_protocol() {
        for (offer, is_another) in [
            ("h2c", false),
            ("H2C , h2c", false),
            ("websocket", true),
            ("h2c, websocket", true),
        ] {
            let offer = HeaderValue::from_static(offer);
            assert_eq!(asks_for_another_protocol(&offer), is_another, "{offer:?}");
        }
    }
}
