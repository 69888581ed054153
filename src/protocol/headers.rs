use http::{HeaderMap, HeaderValue};

/// Which of the fields that this layer heeds are in a request's head.
///
/// Most requests have none or one of them, and a pass over the names that are there takes less time
/// than to look up each that might be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mentions {
    pub(crate) accept: bool,
    pub(crate) idempotency_key: bool,
    pub(crate) prefer: bool,
    /// Whether it is not one message each way: no job can stand for it.
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

/// Java's client and `curl --http2` offer `h2c` with whatever they send first over plain TCP. That is
/// the same request in another framing, deprecated (RFC 9113 §3.1) and ignored by most servers.
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
    fn each_field_is_known_by_its_name() {
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
    fn an_offer_of_http_2_is_no_wish_for_another_protocol() {
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
