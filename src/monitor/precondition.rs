//! Applies conditional and range requests to the monitor's responses.

use std::ops::RangeInclusive;

use http::{HeaderValue, Response, StatusCode, header, request::Parts};

use crate::{
    job::JobId,
    protocol::{RESULT_ETAG_START, Selection, Validators, matches_if_none_match},
    store::ResultBody,
};

/// Sets the `ETag` of a response to a GET. Returns a 304 if the client has this representation.
pub(super) fn tagged(
    mut response: Response<ResultBody>,
    etag: &str,
    head: &Parts,
) -> Response<ResultBody> {
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
pub(super) fn not_modified(mut response: Response<ResultBody>) -> Response<ResultBody> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = ResultBody::default();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
    response
}

/// Applies the request's conditions and range to a stored result. Returns error responses
/// unchanged.
///
/// A 200 without an `ETag` gets one that names the job, since a result never changes. `has_ranges`
/// allows ranges. A result with trailers has none.
///
/// For a partial response, also returns the range of the body to send.
pub(super) fn apply(
    head: &Parts,
    mut response: Response<ResultBody>,
    id: JobId,
    has_ranges: bool,
) -> (Response<ResultBody>, Option<RangeInclusive<u64>>) {
    if !response.status().is_success() {
        return (response, None);
    }
    let has_ranges = has_ranges && !response.body().has_trailers();
    let len = response.body().len().filter(|_| has_ranges);
    let etag = (response.status() == StatusCode::OK).then(|| format!("{RESULT_ETAG_START}{id}\""));
    let validators = Validators::from_headers(response.headers_mut(), etag.as_deref());
    let selection = validators.select(head, len);
    // The length of a body that is streamed before its trailers is not known.
    if selection != Selection::NotModified && len.is_some() {
        let bytes = HeaderValue::from_static("bytes");
        response.headers_mut().insert(header::ACCEPT_RANGES, bytes);
    }
    let (content_range, range) = match selection {
        Selection::NotModified => return (not_modified(response), None),
        Selection::Full => return (response, None),
        Selection::Range { first, last, whole } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (format!("bytes {first}-{last}/{whole}"), Some(first..=last))
        }
        Selection::Unsatisfiable { whole } => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            *response.body_mut() = ResultBody::default();
            // These describe the content that is not sent.
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ETAG] {
                response.headers_mut().remove(name);
            }
            (format!("bytes */{whole}"), None)
        }
    };
    if let Ok(content_range) = HeaderValue::try_from(content_range) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_RANGE, content_range);
    }
    (response, range)
}
