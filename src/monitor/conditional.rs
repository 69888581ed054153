//! Conditional and range requests (RFC 9110 §13 and §14).

use headers::{ETag, HeaderMapExt, IfModifiedSince, IfNoneMatch, IfRange, LastModified};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_range_header::{ParsedRanges, RangeUnsatisfiableError, parse_range_header};

use crate::body::Replay;

/// Whether the client has the representation with this `ETag`.
pub(super) fn has(head: &HeaderMap, etag: &str) -> bool {
    match (head.typed_get::<IfNoneMatch>(), etag.parse::<ETag>()) {
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
fn not_modified(mut response: Response<Replay>) -> Response<Replay> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Replay::default();
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// Answers a conditional or range request for a kept result, in the order of RFC 9110 §13.2.2.
pub(super) fn apply(head: &Parts, mut response: Response<Replay>) -> Response<Replay> {
    if !response.status().is_success() {
        return response;
    }
    let etag = match response.headers().typed_get::<ETag>() {
        Some(etag) => etag,
        // A result never changes; under its address there is no other.
        None => {
            let etag: ETag = "\"result\"".parse().expect("an entity tag");
            response.headers_mut().typed_insert(etag.clone());
            etag
        }
    };
    let modified = response.headers().typed_get::<LastModified>();
    let is_fresh = match head.headers.typed_get::<IfNoneMatch>() {
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
    let if_range = head.headers.typed_get::<IfRange>();
    let is_same = if_range.is_none_or(|range| !range.is_modified(Some(&etag), modified.as_ref()));
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
