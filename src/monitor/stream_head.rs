//! The head of the response that streams a job's output.

use http::{HeaderMap, HeaderName, HeaderValue, header, response};

use super::{
    events::{NO_ACCEL_BUFFERING, X_ACCEL_BUFFERING},
    result,
    route::Resource,
};
use crate::{
    config::Settings,
    job::JobId,
    protocol::{RESULT_ETAG_START, RESULT_TARGET, is_misleading_for_get},
};

/// Also keeps compression middleware from holding output back.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-store, no-transform");

/// Fields about the content as a whole, which a part of it does not have.
const WHOLE_CONTENT_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];

/// Fields that do not hold for a stream: the status document has `Retry-After`.
const RESULT_FIELDS: [HeaderName; 3] = [
    header::RETRY_AFTER,
    header::ACCEPT_RANGES,
    header::CONTENT_RANGE,
];

/// Returns the `ETag` of the output of a run.
pub(super) fn etag(id: JobId, run: u32) -> HeaderValue {
    let etag = format!("{RESULT_ETAG_START}{id}.{run}\"");
    HeaderValue::try_from(etag).expect("an id and a number")
}

/// Returns `true` if a response is a stream of events that is not coded.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next());
    let is_events =
        essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"));
    is_events && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Turns the head of an output into that of a stream that begins at byte `from`.
pub(super) fn finish(head: &mut response::Parts, settings: &Settings, is_owned: bool, from: u64) {
    let headers = &mut head.headers;
    if let Some(target) = headers.remove(RESULT_TARGET) {
        result::resolve(headers, &target, settings, Resource::Stream);
    }
    result::make_shareable(headers, settings, is_owned);
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    headers.insert(X_ACCEL_BUFFERING, NO_ACCEL_BUFFERING);
    for name in RESULT_FIELDS {
        headers.remove(name);
    }
    if from > 0 {
        for name in WHOLE_CONTENT_FIELDS {
            headers.remove(name);
        }
        // A part of coded content cannot be decoded alone.
        if headers.remove(header::CONTENT_ENCODING).is_some() {
            let bytes = HeaderValue::from_static("application/octet-stream");
            headers.insert(header::CONTENT_TYPE, bytes);
        }
    }
    if is_misleading_for_get(head.status) {
        head.status = http::StatusCode::OK;
    }
}
