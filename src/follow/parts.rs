//! Checks that the parts of a response belong together.

use http::{HeaderMap, HeaderValue, StatusCode, header, response::Parts};

use super::final_status::final_status;

/// The type of a part of coded content, which cannot be decoded alone.
const OCTET_STREAM: &str = "application/octet-stream";

/// The fields that all parts of a response share.
#[derive(Debug)]
pub(super) struct WholeHead {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    content_encoding: Option<HeaderValue>,
    length: Option<u64>,
    /// Set if the monitor has sent it. Then only the service itself can have coded the content.
    from_monitor: bool,
}

impl WholeHead {
    pub(super) fn new(head: &Parts, from_monitor: bool) -> Self {
        let headers = &head.headers;
        Self {
            status: final_status(head.status, headers),
            content_type: headers.get(header::CONTENT_TYPE).cloned(),
            content_encoding: headers.get(header::CONTENT_ENCODING).cloned(),
            length: content_length(headers),
            from_monitor,
        }
    }

    /// Returns `true` if a response with the head of `part` can replace this one. No byte of this
    /// one was handed out.
    pub(super) fn can_restart_as(&self, part: &Parts) -> bool {
        let other = Self::new(part, true);
        self.status == other.status
            && self.content_type == other.content_type
            && self.content_encoding == other.content_encoding
            && self.has_room_for(0, other.length)
    }

    /// Returns `true` if a part from byte `received` on belongs to the same content.
    ///
    /// A decoder between the layer and the server would change what offsets count. Nothing in the
    /// first head shows it, but the server announces a part of coded content as bytes.
    pub(super) fn can_continue_as(&self, part: &Parts, received: u64) -> bool {
        let headers = &part.headers;
        let content_type = headers.get(header::CONTENT_TYPE);
        let has_type = match &self.content_encoding {
            // It is unknown whether the service or a layer around it has coded such a response.
            Some(_) if !self.from_monitor && is_bytes(self.content_type.as_ref()) => false,
            Some(_) => is_bytes(content_type),
            None => self.content_type.as_ref() == content_type,
        };
        has_type
            && !headers.contains_key(header::CONTENT_ENCODING)
            && self.has_room_for(received, content_length(headers))
    }

    fn has_room_for(&self, received: u64, part: Option<u64>) -> bool {
        match (self.length, part) {
            (Some(whole), Some(part)) => received.checked_add(part) == Some(whole),
            _ => true,
        }
    }
}

/// Returns `Content-Length`.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    text.trim_ascii().parse().ok()
}

fn is_bytes(content_type: Option<&HeaderValue>) -> bool {
    content_type.is_some_and(|value| value == OCTET_STREAM)
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn head(status: u16, fields: &[(&str, &str)]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    const TEXT: (&str, &str) = ("content-type", "text/plain");
    const BYTES: (&str, &str) = ("content-type", OCTET_STREAM);
    const GZIP: (&str, &str) = ("content-encoding", "gzip");

    #[test]
    fn part_continues_only_the_same_content() {
        for (first, part, from_monitor, expected) in [
            (&[TEXT][..], &[TEXT][..], true, true),
            (&[TEXT], &[BYTES], true, false),
            (&[], &[], true, true),
            (&[TEXT], &[TEXT, GZIP], true, false),
            (&[TEXT, GZIP], &[BYTES], true, true),
            (&[TEXT, GZIP], &[TEXT], true, false),
            (&[BYTES, GZIP], &[BYTES], true, true),
            (&[BYTES, GZIP], &[BYTES], false, false),
            (&[TEXT, GZIP], &[BYTES], false, true),
            (
                &[("content-length", "9")],
                &[("content-length", "6")],
                true,
                true,
            ),
            (
                &[("content-length", "9")],
                &[("content-length", "7")],
                true,
                false,
            ),
            (&[("content-length", "9")], &[], true, true),
            (&[], &[("content-length", "7")], true, true),
        ] {
            let whole = WholeHead::new(&head(200, first), from_monitor);
            let found = whole.can_continue_as(&head(200, part), 3);
            assert_eq!(found, expected, "{first:?} {part:?} {from_monitor}");
        }
    }

    #[test]
    fn response_restarts_only_with_an_equal_head() {
        let whole = WholeHead::new(&head(201, &[TEXT, ("content-length", "9")]), true);
        let created = ("asyncresult", "201");
        for (part, expected) in [
            (head(201, &[TEXT]), true),
            (head(200, &[TEXT, created]), true),
            (head(200, &[TEXT]), false),
            (head(201, &[BYTES]), false),
            (head(201, &[TEXT, GZIP]), false),
            (head(201, &[TEXT, ("content-length", "8")]), false),
        ] {
            assert_eq!(whole.can_restart_as(&part), expected, "{part:?}");
        }
    }
}
