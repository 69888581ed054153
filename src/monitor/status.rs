//! The status document as an answer, as each dialect has it.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{NO_STORE, place::Resource};
use crate::{
    body::Replay,
    dialect::Dialect,
    job::Snapshot,
    jobs::Registry,
    links::At,
    prefer::{PREFER, PREFERENCE_APPLIED},
};

/// Where clients of Azure's convention look for the document.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// Where clients of FHIR's convention look for progress.
const X_PROGRESS: HeaderName = HeaderName::from_static("x-progress");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The longest progress that FHIR's bulk clients are to show.
const MAX_PROGRESS: usize = 100;

/// The status document, and when to ask again.
pub(super) fn document<St>(job: &Snapshot, registry: &Registry<St>) -> Response<Replay> {
    let json = super::document::document(job, &registry.config);
    let mut response = Response::new(Replay::new(json.into(), None));
    let headers = response.headers_mut();
    // As many as any dialect has, so that the map they are in does not grow.
    headers.reserve(12);
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if !job.status.is_ended() {
        let seconds = registry.estimates.retry_after(job);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// What the document's `ETag` is: it changes just when the job does.
pub(super) fn etag(job: &Snapshot) -> String {
    format!("\"{}\"", job.revision)
}

/// The monitor or the result of an unfinished job, as 202.
pub(super) fn pending<St>(
    job: &Snapshot,
    at: Resource,
    registry: &Registry<St>,
) -> Response<Replay> {
    let mut response = document(job, registry);
    *response.status_mut() = StatusCode::ACCEPTED;
    if registry.config.dialect == Dialect::Pending202 {
        let headers = response.headers_mut();
        headers.insert(X_PROGRESS, progress(job));
        let at = At::Monitor(at.depth());
        let monitor = registry.config.link(at, job.id);
        if let Ok(monitor) = HeaderValue::try_from(monitor) {
            headers.insert(header::CONTENT_LOCATION, monitor);
        }
    }
    response
}

/// The monitor of an ended job, where the dialect has it lead to the result.
pub(super) fn see_result<St>(job: &Snapshot, registry: &Registry<St>) -> Response<Replay> {
    let mut response = document(job, registry);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let result = [&registry.config.link(At::Monitor(0), job.id), "/result"].concat();
    if let Ok(result) = HeaderValue::try_from(result) {
        response.headers_mut().insert(header::LOCATION, result);
    }
    response
}

/// The answer to a request for `path` that has become a job (RFC 9110 §15.3.3).
pub(crate) fn accepted<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    applied: Option<HeaderValue>,
) -> Response<Replay> {
    let mut response = document(job, registry);
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    let monitor = registry.config.link(At::Request(path), job.id);
    let link = HeaderValue::try_from(["<", &monitor, ">; rel=\"monitor\""].concat());
    let operation = match registry.config.dialect {
        Dialect::Default => None,
        Dialect::Pending202 | Dialect::SeeOther => Some([&monitor, "/status"].concat()),
    };
    if let (Ok(monitor), Ok(link)) = (HeaderValue::try_from(monitor), link) {
        let operation = operation.and_then(|operation| HeaderValue::try_from(operation).ok());
        let operation = operation.unwrap_or_else(|| monitor.clone());
        headers.insert(OPERATION_LOCATION, operation);
        if registry.config.dialect == Dialect::Pending202 {
            headers.insert(header::CONTENT_LOCATION, monitor.clone());
        }
        headers.insert(header::LOCATION, monitor);
        headers.insert(header::LINK, link);
    }
    headers.insert(header::VARY, PREFER.into());
    if let Some(applied) = applied {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// The same for a client that prefers a page: a browser shows what it is led to, under an address of
/// its own, and a reload posts nothing again.
pub(crate) fn see_page<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    applied: Option<HeaderValue>,
) -> Response<Replay> {
    let mut response = accepted(job, registry, path, applied);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    // With a 303 it would tell when to follow (RFC 9110 §10.2.3), and that is at once.
    headers.remove(header::RETRY_AFTER);
    headers.append(header::VARY, header::ACCEPT.into());
    response
}

/// Where a client that prefers a page is led after it has changed something at `from`.
pub(super) fn back_to_page<St>(
    job: &Snapshot,
    from: Resource,
    registry: &Registry<St>,
) -> Response<Replay> {
    let mut response = document(job, registry);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.remove(header::RETRY_AFTER);
    let page = registry.config.link(At::Monitor(from.depth()), job.id);
    if let Ok(page) = HeaderValue::try_from(page) {
        headers.insert(header::LOCATION, page);
    }
    response
}

/// `40% page 4 of 10`, as far as there is any of it.
fn progress(job: &Snapshot) -> HeaderValue {
    let percent = job.progress.fraction.map(super::document::percent);
    let percent = percent.map(|percent| format!("{percent}%"));
    // What a field can't hold is left out of it.
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
    text.truncate(MAX_PROGRESS);
    HeaderValue::try_from(text.trim()).unwrap_or(HeaderValue::from_static("running"))
}
