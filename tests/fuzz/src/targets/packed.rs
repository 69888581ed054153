//! Packed responses: the status, header fields, trailer fields after `+`, then the body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::input::{fields, line};
use crate::store::memory::{
    body::StoredBody,
    packed::{Packed, head_len, peek, unpack},
};

/// Checks that a packed response is the response that was packed, sensitive values included.
pub fn packed(input: &[u8]) {
    let (status, rest) = line(input);
    let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::OK);
    let (headers, rest) = fields(rest);
    let (trailers, body) = match rest.strip_prefix(b"+") {
        Some(rest) => {
            let (trailers, body) = fields(rest);
            (Some(trailers), body)
        }
        None => (None, rest),
    };
    let body = Bytes::copy_from_slice(body);
    let stored = StoredBody::One(body.clone());
    let packed = Packed::new(status, &headers, trailers.as_ref(), stored);
    assert!(packed.large.is_none(), "small bodies are packed");

    let head = peek(&packed.bytes);
    assert_eq!(
        (head.status, head.content_length),
        (status, body.len() as u64)
    );
    assert_eq!(
        head.content_type.as_ref(),
        headers.get(header::CONTENT_TYPE)
    );
    let retry_after = headers.get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| str::from_utf8(value.as_bytes()).ok());
    let retry_after = retry_after.filter(|text| text.is_ascii());
    assert_eq!(head.retry_after.as_deref(), retry_after);

    let bytes = Bytes::from(packed.bytes);
    let start = head_len(&bytes);
    let unpacked = unpack(&bytes.slice(..start));
    assert_eq!((unpacked.status, bytes.slice(start..)), (status, body));
    assert_eq!(flat(&unpacked.headers), flat(&headers));
    assert_eq!(
        unpacked.trailers.as_ref().map(flat),
        trailers.as_ref().map(flat)
    );
}

fn flat(fields: &HeaderMap) -> Vec<(&HeaderName, &HeaderValue, bool)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name, value, value.is_sensitive()))
        .collect()
}
