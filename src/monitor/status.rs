//! The status document as a response, in each dialect.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};

use super::{
    document::{document, percent},
    precondition,
    route::Resource,
};
use crate::{
    config::{Dialect, LinkOrigin, Settings},
    job::{JobId, Snapshot},
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

/// The number of fields that there is room for in a response's head, so that it does not grow.
const HEAD_CAPACITY: usize = 8;

/// Returns the status document, with `Retry-After` if the job is unfinished.
pub(super) fn document_response<St>(
    job: &Snapshot,
    registry: &Registry<St>,
) -> Response<ResultBody> {
    let document = document(job, &registry.settings);
    let mut response = Response::new(ResultBody::new(document.into(), None));
    let mut headers = HeaderMap::with_capacity(HEAD_CAPACITY);
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::VARY, VARY);
    if !job.status.is_ended() {
        let seconds = job.retry_after(&registry.estimates);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    *response.headers_mut() = headers;
    response
}

/// Returns the status document with its `ETag`, or 304 if the client has it.
pub(super) fn tagged<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    head: &Parts,
) -> Response<ResultBody> {
    let mut response = document_response(job, registry);
    if let Ok(etag) = HeaderValue::try_from(etag(job)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    if is_known(job, &head.headers) {
        precondition::not_modified(response)
    } else {
        response
    }
}

/// Returns `true` if the client has the current document.
pub(super) fn is_known(job: &Snapshot, head: &HeaderMap) -> bool {
    head.contains_key(header::IF_NONE_MATCH) && matches_if_none_match(head, &etag(job))
}

/// Returns the document's `ETag`, which changes exactly when the job does.
fn etag(job: &Snapshot) -> String {
    format!("\"{}\"", job.revision)
}

/// Returns the monitor or the result of an unfinished job, as 202.
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
        headers.insert(header::CONTENT_LOCATION, monitor);
    }
    response
}

/// Returns the monitor of an ended job, in the dialect that redirects to the result.
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
