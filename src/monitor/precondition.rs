//! Applies conditional and range requests to the monitor's responses.

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};

use crate::{
    job::JobId,
    problem::Problem,
    protocol::{EntityTags, RESULT_ETAG_START, Selection, Validators},
    store::{ResultBody, Revisions},
};

/// Returns the revisions of a job at which the conditions of a request to change it hold. A
/// document's `ETag` is its revision.
///
/// A document has no modification date, so conditions on dates are ignored (RFC 9110 §13.1.4).
pub(super) fn revisions(request: &HeaderMap) -> Revisions {
    let expected = EntityTags::if_match(request).unwrap_or(EntityTags::Any);
    match (expected, EntityTags::if_none_match(request)) {
        (EntityTags::Any, None) => Revisions::Any,
        (_, Some(EntityTags::Any)) => Revisions::OneOf(Vec::new()),
        (EntityTags::Any, Some(EntityTags::Listed(tags))) => Revisions::Except(numbers(&tags)),
        (EntityTags::Listed(tags), None) => Revisions::OneOf(numbers(&tags)),
        (EntityTags::Listed(tags), Some(EntityTags::Listed(others))) => {
            let (mut listed, others) = (numbers(&tags), numbers(&others));
            listed.retain(|revision| !others.contains(revision));
            Revisions::OneOf(listed)
        }
    }
}

/// Returns the revisions that tags name. Other tags match no document.
fn numbers(tags: &[&[u8]]) -> Vec<u64> {
    let numbers = tags.iter().filter_map(|tag| {
        let text = str::from_utf8(tag).ok()?;
        let number: u64 = text.parse().ok()?;
        // A tag is compared as text: "07" is not "7".
        (number.to_string() == text).then_some(number)
    });
    numbers.collect()
}

/// Applies the conditions of a GET or HEAD to a response other than a stored result. Returns a
/// response that is not 2xx unchanged.
pub(super) fn check<B>(request: &Parts, mut response: Response<B>) -> Response<B>
where
    B: From<ResultBody>,
{
    if !response.status().is_success() {
        return response;
    }
    let validators = Validators::from_headers(response.headers_mut(), None);
    match validators.select(request, None) {
        Selection::Failed => Problem::PreconditionFailed.response().map(B::from),
        // Only a 200 can become a 304 (RFC 9110 §15.4.5).
        Selection::NotModified if response.status() == StatusCode::OK => not_modified(response),
        _ => response,
    }
}

/// Turns a response into a 304.
fn not_modified<B: From<ResultBody>>(mut response: Response<B>) -> Response<B> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = ResultBody::default().into();
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
    let is_sent = !matches!(selection, Selection::Failed | Selection::NotModified);
    if is_sent && len.is_some() {
        let bytes = HeaderValue::from_static("bytes");
        response.headers_mut().insert(header::ACCEPT_RANGES, bytes);
    }
    let (content_range, range) = match selection {
        Selection::Failed => return (Problem::PreconditionFailed.response(), None),
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
