//! Conditional and range requests (RFC 9110 §13 and §14).

use headers::{ETag, Header, HeaderMapExt, IfModifiedSince, IfNoneMatch, IfRange, LastModified};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_range_header::{ParsedRanges, RangeUnsatisfiableError, parse_range_header};

use crate::middleware::Replay;

/// Whether the client has the representation with this `ETag`.
pub(super) fn has(head: &HeaderMap, etag: &str) -> bool {
    match (field::<IfNoneMatch>(head), etag.parse::<ETag>()) {
        (Some(condition), Ok(etag)) => !condition.precondition_passes(&etag),
        _ => false,
    }
}

/// An answer to a GET with its `ETag`, or 304 where the client has it already.
pub(super) fn tagged(mut response: Response<Replay>, etag: &str, head: &Parts) -> Response<Replay> {
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    match has(&head.headers, etag) {
        true => not_modified(response),
        false => response,
    }
}

/// Turns an answer with an `ETag` to a GET into 304 where the client has it already.
pub(super) fn not_modified(mut response: Response<Replay>) -> Response<Replay> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Replay::default();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    response
}

/// A field of entity tags, where all of them are what RFC 9110 §8.8.3 calls one. The library that reads
/// them takes that for granted.
fn field<H: Header>(headers: &HeaderMap) -> Option<H> {
    let is_tag = |byte: u8| (b'!'..=b'~').contains(&byte);
    let is_valid = headers.get_all(H::name()).iter().all(|value| {
        // Every other part is between quotes; a date has none.
        let mut parts = value.as_bytes().split(|&byte| byte == b'"').skip(1);
        let mut quoted = parts.by_ref().step_by(2);
        quoted.all(|tag| tag.iter().copied().all(is_tag))
    });
    is_valid.then(|| headers.typed_get()).flatten()
}

/// Answers a conditional or range request for a kept result: `If-None-Match`, `If-Modified-Since` and
/// `If-Range`, in the order of RFC 9110 §13.2.2.
pub(super) fn apply(head: &Parts, mut response: Response<Replay>) -> Response<Replay> {
    if !response.status().is_success() {
        return response;
    }
    let etag = match field::<ETag>(response.headers()) {
        Some(etag) => etag,
        // A result never changes; under its address there is no other.
        None => {
            let etag: ETag = "\"result\"".parse().expect("an entity tag");
            response.headers_mut().typed_insert(etag.clone());
            etag
        }
    };
    let modified = response.headers().typed_get::<LastModified>();
    let is_fresh = match field::<IfNoneMatch>(&head.headers) {
        Some(condition) => !condition.precondition_passes(&etag),
        None => match (head.headers.typed_get::<IfModifiedSince>(), modified) {
            (Some(condition), Some(modified)) => !condition.is_modified(modified.into()),
            _ => false,
        },
    };
    if is_fresh {
        return not_modified(response);
    }
    // A response that is a part already, or has trailers, is not taken apart.
    let is_whole = response.status() == StatusCode::OK && !response.body().has_trailers();
    if !is_whole {
        return response;
    }
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(header::ACCEPT_RANGES, bytes);
    if head.method != Method::GET {
        return response;
    }
    // What is there and can't be read is not what the client has: the whole is sent.
    let is_same = match field::<IfRange>(&head.headers) {
        Some(range) => !range.is_modified(Some(&etag), modified.as_ref()),
        None => !head.headers.contains_key(header::IF_RANGE),
    };
    let range = head.headers.get(header::RANGE).filter(|_| is_same);
    let range = range.and_then(|range| parse_range_header(range.to_str().ok()?).ok());
    match range {
        Some(range) => part(&range, response),
        None => response,
    }
}

/// The one range that is asked for; of several, the whole may be sent (RFC 9110 §14.2).
fn part(range: &ParsedRanges, mut response: Response<Replay>) -> Response<Replay> {
    let whole = response.body().len();
    let content_range = match range.validate(whole as u64).as_deref() {
        Ok([range]) => {
            let (first, last) = (*range.start() as usize, *range.end() as usize);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.body_mut().slice(first..=last);
            format!("bytes {first}-{last}/{whole}")
        }
        Err(RangeUnsatisfiableError::Unsatisfiable) => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            *response.body_mut() = Replay::default();
            // What they are about is not sent.
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ETAG] {
                response.headers_mut().remove(name);
            }
            format!("bytes */{whole}")
        }
        _ => return response,
    };
    if let Ok(content_range) = HeaderValue::try_from(content_range) {
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, content_range);
    }
    response
}
