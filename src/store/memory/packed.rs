//! A response in one piece of memory.

use std::cell::Cell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::body::StoredBody;
use crate::{job::ResponseHead, limit::MAX_COPIED_BYTES};

/// The maximum size of the buffer that a thread keeps for its next response, in bytes.
const MAX_SPARE_BYTES: usize = 2 * MAX_COPIED_BYTES;

/// Names that many responses have, the most frequent first. Their index is stored instead, which
/// takes one byte for the first 64.
static NAMES: [&str; 40] = [
    "content-type",
    "cache-control",
    "etag",
    "date",
    "x-request-id",
    "vary",
    "server",
    "content-encoding",
    "last-modified",
    "location",
    "set-cookie",
    "content-disposition",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "content-security-policy",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-resource-policy",
    "accept-ranges",
    "age",
    "allow",
    "content-language",
    "content-location",
    "deprecation",
    "expires",
    "link",
    "pragma",
    "preference-applied",
    "ratelimit",
    "retry-after",
    "server-timing",
    "traceparent",
    "via",
    "www-authenticate",
    "x-correlation-id",
    "x-powered-by",
];

thread_local! {
    /// A buffer to reuse. It is taken while a response is packed, and a copy of its bytes is kept.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A response in one piece: an `http::Response` takes five times the memory of a small one.
///
/// Lengths are in LEB128. The head is the status, the headers and the trailers. Each group is its
/// count (for the trailers one more, and 0 without any), then names and values. The lowest bit of a
/// name's length says that it is an index of [`NAMES`] instead. The lowest bit of a value's length
/// says that the value is sensitive. A small body follows.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    /// A body that is too large to be packed.
    pub(super) large: Option<StoredBody>,
}

/// A response that [`unpack`] has read.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
}

impl Packed {
    pub(super) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        trailers: Option<&HeaderMap>,
        body: StoredBody,
    ) -> Self {
        let is_copied = body.len() <= MAX_COPIED_BYTES as u64;
        let mut bytes = SPARE.take();
        put_length(&mut bytes, status.as_u16().into());
        put_length(&mut bytes, headers.len());
        put_fields(&mut bytes, headers);
        put_length(
            &mut bytes,
            trailers.map_or(0, |trailers| trailers.len() + 1),
        );
        if let Some(trailers) = trailers {
            put_fields(&mut bytes, trailers);
        }
        if is_copied {
            body.copy_to(&mut bytes);
        }
        let large = (!is_copied).then_some(body);
        Self { bytes, large }
    }

    /// Keeps a buffer for this thread's next response, once its bytes have been copied.
    pub(super) fn recycle(mut bytes: Vec<u8>) {
        if (1..=MAX_SPARE_BYTES).contains(&bytes.capacity()) {
            bytes.clear();
            SPARE.set(bytes);
        }
    }
}

/// Returns the values for the status document, with the length of a packed body.
pub(super) fn peek(packed: &[u8]) -> ResponseHead {
    let mut reader = PackedReader(packed);
    let status = reader.status();
    let (mut content_type, mut retry_after) = (None, None);
    for _ in 0..reader.length() {
        let (name, value, _) = reader.field();
        // Values are copied, because a share would keep all of the bytes.
        if name == b"content-type" && content_type.is_none() {
            content_type = HeaderValue::from_bytes(value).ok();
        } else if name == b"retry-after" && retry_after.is_none() {
            retry_after = Some(value);
        }
    }
    for _ in 1..reader.length() {
        reader.field();
    }
    ResponseHead {
        status,
        content_type,
        content_length: reader.0.len() as u64,
        retry_after: retry_after.and_then(|value| {
            let text = str::from_utf8(value).ok()?;
            text.is_ascii().then(|| text.into())
        }),
    }
}

/// Returns the length of the head. A small body follows it.
pub(super) fn head_len(packed: &[u8]) -> usize {
    let mut reader = PackedReader(packed);
    reader.status();
    for _ in 0..reader.length() {
        reader.field();
    }
    for _ in 1..reader.length() {
        reader.field();
    }
    packed.len() - reader.0.len()
}

pub(super) fn unpack(packed: &Bytes) -> Unpacked {
    let mut reader = PackedReader(packed);
    let status = reader.status();
    let count = reader.length();
    let headers = reader.fields(count, packed);
    let trailers = reader
        .length()
        .checked_sub(1)
        .map(|count| reader.fields(count, packed));
    Unpacked {
        status,
        headers,
        trailers,
    }
}

fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn put_fields(bytes: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        match index_of(name) {
            Some(index) => put_length(bytes, index << 1 | 1),
            None => {
                put_length(bytes, name.as_str().len() << 1);
                bytes.extend_from_slice(name.as_str().as_bytes());
            }
        }
        put_length(bytes, value.len() << 1 | usize::from(value.is_sensitive()));
        bytes.extend_from_slice(value.as_bytes());
    }
}

/// Returns the index of a name in [`NAMES`].
fn index_of(name: &HeaderName) -> Option<usize> {
    NAMES.iter().position(|known| name == known)
}

/// Reads the bytes of [`Packed::new`]. It uses its fallbacks only for bytes that `new` never
/// writes.
struct PackedReader<'a>(&'a [u8]);

impl<'a> PackedReader<'a> {
    fn length(&mut self) -> usize {
        let (mut length, mut shift) = (0, 0);
        while let Some((&byte, rest)) = self.0.split_first() {
            self.0 = rest;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        length
    }

    fn status(&mut self) -> StatusCode {
        u16::try_from(self.length())
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or_default();
        self.0 = rest;
        taken
    }

    /// Returns a name, its value, and whether the value is sensitive.
    fn field(&mut self) -> (&'a [u8], &'a [u8], bool) {
        let length = self.length();
        let name = match length & 1 {
            0 => self.take(length >> 1),
            _ => NAMES
                .get(length >> 1)
                .map_or(&[][..], |name| name.as_bytes()),
        };
        let length = self.length();
        (name, self.take(length >> 1), length & 1 == 1)
    }

    /// Returns fields whose values are shares of `bytes`, the buffer that this reads.
    fn fields(&mut self, count: usize, bytes: &Bytes) -> HeaderMap {
        let mut fields = HeaderMap::try_with_capacity(count).unwrap_or_default();
        for _ in 0..count {
            let (name, value, is_sensitive) = self.field();
            let name = HeaderName::from_bytes(name);
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value));
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(is_sensitive);
                // A writer gets no more fields than a map has room for.
                let _ = fields.try_append(name, value);
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn fields() -> impl Strategy<Value = HeaderMap> {
        let name = prop_oneof![
            "[a-zA-Z][a-z0-9-]{0,20}",
            proptest::sample::select(NAMES.map(str::to_owned).to_vec()),
        ];
        let value = "[ -~\u{80}-\u{ff}]{0,300}";
        vec((name, value, any::<bool>()), 0..12).prop_map(|fields| {
            let mut map = HeaderMap::new();
            for (name, value, sensitive) in fields {
                let mut value = HeaderValue::from_bytes(value.as_bytes()).expect("no controls");
                value.set_sensitive(sensitive);
                map.append(HeaderName::try_from(name).expect("a token"), value);
            }
            map
        })
    }

    proptest! {
        #[test]
        fn packed_response_round_trips(
            code in 100_u16..1000,
            headers in fields(),
            trailers in proptest::option::of(fields()),
            body in vec(any::<u8>(), 0..300),
            large: bool,
        ) {
            let status = StatusCode::from_u16(code).expect("in range");
            let body = Bytes::from(if large { body.repeat(400) } else { body });
            let stored = StoredBody::One(body.clone());
            let packed = Packed::new(status, &headers, trailers.as_ref(), stored);
            let shown = peek(&packed.bytes);
            let head = head_len(&packed.bytes);
            prop_assert_eq!((packed.bytes.len() - head) as u64, shown.content_length);
            let stored = Bytes::from(packed.bytes);
            let all = unpack(&stored.slice(..head));
            let length = packed.large.as_ref().map_or(shown.content_length, StoredBody::len);
            let mut kept = stored.slice(head..);
            if let Some(StoredBody::One(body)) = packed.large {
                kept = body;
            }
            prop_assert_eq!((shown.status, length), (status, body.len() as u64));
            prop_assert_eq!(shown.content_type.as_ref(), headers.get("content-type"));
            let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok());
            prop_assert_eq!(shown.retry_after.as_deref(), retry_after);
            prop_assert_eq!((all.status, &all.trailers, &kept), (status, &trailers, &body));
            let flat = |map: &HeaderMap| -> Vec<_> {
                map.iter().map(|(n, v)| (n.clone(), v.clone(), v.is_sensitive())).collect()
            };
            prop_assert_eq!(flat(&all.headers), flat(&headers));
        }
    }

    #[test]
    fn known_name_takes_one_byte() {
        assert!(NAMES.len() <= 64);
        for name in NAMES {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static("x"));
            let headers = HeaderMap::from_iter([(name, value)]);
            let mut bytes = Vec::new();
            put_fields(&mut bytes, &headers);
            assert_eq!(bytes.len(), 3);
        }
    }

    #[test]
    fn large_body_is_moved_and_small_one_copied() {
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        let large = Bytes::from(vec![7; MAX_COPIED_BYTES + 1]);
        let packed = Packed::new(status, &headers, None, StoredBody::One(large.clone()));
        let Some(StoredBody::One(body)) = packed.large else {
            panic!("not moved");
        };
        assert_eq!(body.as_ptr(), large.as_ptr());
        assert_eq!(head_len(&packed.bytes), packed.bytes.len());
        let small = Bytes::from(vec![7; MAX_COPIED_BYTES]);
        let packed = Packed::new(status, &headers, None, StoredBody::One(small.clone()));
        assert!(packed.large.is_none());
        assert_eq!(packed.bytes[head_len(&packed.bytes)..], small);
    }
}
