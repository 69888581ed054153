//! The status document as a response, in each dialect.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    document::linked_document,
    response_buffer::{ResponseBuffer, write_number},
    route::Resource,
};
use crate::{
    config::{Dialect, LinkOrigin, Settings},
    job::{JobId, Snapshot, percent},
    protocol::matches_if_none_match,
    registry::Registry,
    store::ResultBody,
};

/// The progress of a job, for FHIR's bulk clients.
const X_PROGRESS: HeaderName = HeaderName::from_static("x-progress");

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The request fields that can change the response at one URI.
pub(super) const VARY: HeaderValue = HeaderValue::from_static("accept, prefer");

/// The maximum length of the progress that FHIR's bulk clients show.
const MAX_PROGRESS_CHARS: usize = 100;

/// Marks a field of a template whose value is filled in later.
pub(super) const TO_FILL: HeaderValue = HeaderValue::from_static("");

/// The fields of the document at its monitor. Cloning a map and filling it in takes half the
/// instructions of five inserts.
static FIELDS: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, NO_STORE),
        (header::ETAG, TO_FILL),
        (header::VARY, VARY),
        (header::CONTENT_LENGTH, TO_FILL),
    ])
});

/// Returns the status document, with `Retry-After` if the job is unfinished.
pub(super) fn document_response<St>(
    job: &Snapshot,
    registry: &Registry<St>,
) -> Response<ResultBody> {
    let document = linked_document(
        LinkOrigin::Document,
        &job.id.encode(),
        job,
        &registry.settings,
    );
    let mut response = Response::new(ResultBody::new(document.into(), None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::VARY, VARY);
    if let Some(seconds) = registry.show(job) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Returns the status document with its `ETag` and length.
pub(super) fn tagged<St>(job: &Snapshot, registry: &Registry<St>) -> Response<ResultBody> {
    let mut buffer = ResponseBuffer::new(job, &registry.settings);
    let length = buffer.add_number(buffer.document_len());
    let etag = buffer.add(|text| write_etag(text, job));
    let retry_after = registry.show(job);
    let retry_after = retry_after.map(|seconds| buffer.add_number(seconds));
    let buffer = buffer.finish();
    let mut headers = FIELDS.clone();
    for (name, value) in &mut headers {
        let text = match name {
            _ if name == header::ETAG => &etag,
            _ if name == header::CONTENT_LENGTH => &length,
            _ => continue,
        };
        *value = buffer.value(text.clone());
    }
    if let Some(retry_after) = retry_after {
        headers.insert(header::RETRY_AFTER, buffer.value(retry_after));
    }
    let mut response = Response::new(buffer.body());
    *response.headers_mut() = headers;
    response
}

/// Returns `true` if the client has the current document.
pub(super) fn is_known(job: &Snapshot, head: &HeaderMap) -> bool {
    head.contains_key(header::IF_NONE_MATCH) && {
        let mut etag = Vec::new();
        write_etag(&mut etag, job);
        str::from_utf8(&etag).is_ok_and(|etag| matches_if_none_match(head, etag))
    }
}

/// Writes the document's `ETag`. It changes exactly if the job changes.
fn write_etag(to: &mut Vec<u8>, job: &Snapshot) {
    to.push(b'"');
    write_number(to, job.revision);
    to.push(b'"');
}

/// Returns the response of the monitor or the result while the job is unfinished: a 202.
pub(super) fn pending<St>(
    job: &Snapshot,
    at: Resource,
    registry: &Registry<St>,
) -> Response<ResultBody> {
    let mut response = document_response(job, registry);
    *response.status_mut() = StatusCode::ACCEPTED;
    if registry.settings.dialect == Dialect::Pending202 {
        let headers = response.headers_mut();
        headers.insert(X_PROGRESS, progress(job));
        let origin = LinkOrigin::Monitor(at.depth());
        let monitor = link(&registry.settings, origin, job.id, "");
        headers.insert(header::LOCATION, monitor.clone());
        headers.insert(header::CONTENT_LOCATION, monitor);
    }
    response
}

/// Returns the response to the DELETE of a job.
pub(super) fn deleted(id: JobId, settings: &Settings) -> Response<ResultBody> {
    if settings.dialect != Dialect::Pending202 {
        return empty(StatusCode::NO_CONTENT);
    }
    let mut response = empty(StatusCode::ACCEPTED);
    let monitor = link(settings, LinkOrigin::Monitor(0), id, "");
    response.headers_mut().insert(header::LOCATION, monitor);
    response
}

/// Redirects from the monitor of an ended job to its result.
pub(super) fn see_result<St>(job: &Snapshot, registry: &Registry<St>) -> Response<ResultBody> {
    let mut response = document_response(job, registry);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let result = link(
        &registry.settings,
        LinkOrigin::Monitor(0),
        job.id,
        "/result",
    );
    response.headers_mut().insert(header::LOCATION, result);
    response
}

/// Redirects a client that prefers a page, after it has changed something at `from`.
pub(super) fn back_to_page<St>(
    job: &Snapshot,
    from: Resource,
    registry: &Registry<St>,
) -> Response<ResultBody> {
    let mut response = document_response(job, registry);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.remove(header::RETRY_AFTER);
    let origin = LinkOrigin::Monitor(from.depth());
    let page = link(&registry.settings, origin, job.id, "");
    headers.insert(header::LOCATION, page);
    response
}

/// Returns an empty response of this status.
pub(super) fn empty(status: StatusCode) -> Response<ResultBody> {
    let mut response = Response::new(ResultBody::default());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

fn link(settings: &Settings, origin: LinkOrigin<'_>, id: JobId, rest: &str) -> HeaderValue {
    let mut link = Vec::new();
    settings.write_link(&mut link, origin, &id.encode());
    link.extend_from_slice(rest.as_bytes());
    HeaderValue::try_from(link).expect("a link has only URI characters")
}

/// Returns progress such as `40% page 4 of 10`, or the status if the job reported none.
fn progress(job: &Snapshot) -> HeaderValue {
    let percent = job.progress.fraction.map(percent);
    let percent = percent.map(|percent| format!("{percent}%"));
    // A field value cannot have all characters of a message.
    let message = job.progress.message.as_deref().unwrap_or_default();
    let message: String = message
        .chars()
        .filter(|char| (' '..='~').contains(char))
        .collect();
    let words = percent.as_deref().into_iter().chain([message.as_str()]);
    let mut text: String = words.collect::<Vec<_>>().join(" ");
    if text.trim().is_empty() {
        text = job.status.to_string();
    }
    text.truncate(MAX_PROGRESS_CHARS);
    HeaderValue::try_from(text.trim()).unwrap_or(HeaderValue::from_static("running"))
}
