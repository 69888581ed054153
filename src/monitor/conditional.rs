//! Applies conditional and range requests to the monitor's responses.

use http::{HeaderValue, Response, StatusCode, header, request::Parts};

use crate::{
    middleware::Replay,
    protocol::{Selection, Validators, matches_if_none_match},
};

/// The entity tag of a result that has none. A result never changes, and its URI has no other.
const RESULT_ETAG: &str = "\"result\"";

/// Sets the `ETag` of a response to a GET. Returns a 304 if the client has this representation.
pub(super) fn tagged(mut response: Response<Replay>, etag: &str, head: &Parts) -> Response<Replay> {
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    if matches_if_none_match(&head.headers, etag) {
        not_modified(response)
    } else {
        response
    }
}

/// Turns a response into a 304.
pub(super) fn not_modified(mut response: Response<Replay>) -> Response<Replay> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Replay::default();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    response
}

/// Applies the request's conditions and range to a stored result. Errors are returned unchanged.
pub(super) fn apply(head: &Parts, mut response: Response<Replay>) -> Response<Replay> {
    if !response.status().is_success() {
        return response;
    }
    // A response that is a range itself, or has trailers, cannot be sent in ranges.
    let is_whole = response.status() == StatusCode::OK && !response.body().has_trailers();
    let len = is_whole.then(|| response.body().len() as u64);
    let selection = Validators::from_headers(response.headers_mut(), RESULT_ETAG).select(head, len);
    if selection != Selection::NotModified && is_whole {
        let bytes = HeaderValue::from_static("bytes");
        response.headers_mut().insert(header::ACCEPT_RANGES, bytes);
    }
    let content_range = match selection {
        Selection::NotModified => return not_modified(response),
        Selection::Full => return response,
        Selection::Range { first, last, whole } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            // Offsets lie within the body, so they fit.
            response.body_mut().slice(first as usize..=last as usize);
            format!("bytes {first}-{last}/{whole}")
        }
        Selection::Unsatisfiable { whole } => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            *response.body_mut() = Replay::default();
            // These describe the content that is not sent.
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ETAG] {
                response.headers_mut().remove(name);
            }
            format!("bytes */{whole}")
        }
    };
    if let Ok(content_range) = HeaderValue::try_from(content_range) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_RANGE, content_range);
    }
    response
}
