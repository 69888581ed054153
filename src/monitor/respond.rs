//! The status document as an answer, as each dialect has it.

use std::{ops::Range, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use tokio::time::Instant;

use super::{
    NO_STORE, VARY, conditional,
    document::{document, document_at},
    route::Resource,
};
use crate::{
    config::{At, Config, Dialect},
    job::{IdText, JobId, Snapshot},
    jobs::Registry,
    middleware::Replay,
    protocol::{PREFER, PREFERENCE_APPLIED},
};

/// Where clients of Azure's convention look for the document.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// Where clients of FHIR's convention look for progress.
const X_PROGRESS: HeaderName = HeaderName::from_static("x-progress");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Holds a field's place until its value is known.
const TO_COME: HeaderValue = HeaderValue::from_static("");

/// The longest progress that FHIR's bulk clients are to show.
const MAX_PROGRESS: usize = 100;

/// The fields of an accepted request's answer. A map that is copied has just the room it needs; one
/// that is filled field by field grows past the sizes that allocators have at hand.
static ACCEPTED: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, NO_STORE),
        (header::RETRY_AFTER, TO_COME),
        (header::LOCATION, TO_COME),
        (OPERATION_LOCATION, TO_COME),
        (header::LINK, TO_COME),
        (header::VARY, PREFER.into()),
    ])
});

/// The fields of the document of an ended job at its monitor.
static TAGGED: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, NO_STORE),
        (header::ETAG, TO_COME),
        (header::VARY, VARY),
        (header::CONTENT_LENGTH, TO_COME),
    ])
});

/// A document, and texts for the head of the answer that it is in: all in one buffer, of which body and
/// fields are shares.
struct Sheet {
    text: Vec<u8>,
    document: usize,
    id: IdText,
}

impl Sheet {
    fn new(job: &Snapshot, config: &Config) -> Self {
        let id = job.id.encode();
        let text = document_at(At::Document, &id, job, config);
        let document = text.len();
        Self { text, document, id }
    }

    /// Adds a text and tells its place.
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.text.len();
        write(&mut self.text);
        start..self.text.len()
    }

    fn finish(self) -> Written {
        Written {
            document: self.document,
            text: self.text.into(),
        }
    }
}

/// A [`Sheet`] that is written.
struct Written {
    text: Bytes,
    document: usize,
}

impl Written {
    fn body(&self) -> Replay {
        Replay::new(self.text.slice(..self.document), None)
    }

    fn value(&self, text: Range<usize>) -> HeaderValue {
        let value = HeaderValue::from_maybe_shared(self.text.slice(text));
        value.expect("a link, a tag or a number")
    }
}

/// The status document, and when to ask again.
pub(super) fn answer<St>(job: &Snapshot, registry: &Registry<St>) -> Response<Replay> {
    let mut response = Response::new(Replay::new(document(job, &registry.config).into(), None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::VARY, VARY);
    if !job.status.is_ended() {
        headers.insert(
            header::RETRY_AFTER,
            job.retry_after(&registry.estimates, Instant::now()).into(),
        );
    }
    response
}

/// The same with the document's `ETag`, or 304 where the client has it already.
pub(super) fn tagged<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    head: &Parts,
) -> Response<Replay> {
    let is_known = is_known(job, &head.headers);
    let mut sheet = Sheet::new(job, &registry.config);
    let length = sheet.document as u64;
    let length = sheet.add(|text| write_number(text, length));
    let etag = sheet.add(|text| write_etag(text, job));
    let unfinished = !job.status.is_ended();
    let retry_after = unfinished.then(|| {
        sheet.add(|text| write_number(text, job.retry_after(&registry.estimates, Instant::now())))
    });
    let sheet = sheet.finish();
    let mut response = Response::new(sheet.body());
    let mut headers = TAGGED.clone();
    for (name, value) in &mut headers {
        let text = match name {
            _ if name == header::ETAG => &etag,
            _ if name == header::CONTENT_LENGTH => &length,
            _ => continue,
        };
        *value = sheet.value(text.clone());
    }
    if let Some(retry_after) = retry_after {
        headers.insert(header::RETRY_AFTER, sheet.value(retry_after));
    }
    *response.headers_mut() = headers;
    match is_known {
        true => conditional::not_modified(response),
        false => response,
    }
}

/// Whether the client says that it has the document as it is.
pub(super) fn is_known(job: &Snapshot, head: &HeaderMap) -> bool {
    head.contains_key(header::IF_NONE_MATCH) && {
        let mut etag = Vec::new();
        write_etag(&mut etag, job);
        str::from_utf8(&etag).is_ok_and(|etag| conditional::has(head, etag))
    }
}

/// Writes the document's `ETag`: it changes just when the job does.
fn write_etag(to: &mut Vec<u8>, job: &Snapshot) {
    to.push(b'"');
    write_number(to, job.revision);
    to.push(b'"');
}

fn write_number(to: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(to, &number).expect("a number");
}

/// The monitor or the result of an unfinished job, as 202.
pub(super) fn pending<St>(
    job: &Snapshot,
    at: Resource,
    registry: &Registry<St>,
) -> Response<Replay> {
    let mut response = answer(job, registry);
    *response.status_mut() = StatusCode::ACCEPTED;
    if registry.config.dialect == Dialect::Pending202 {
        let headers = response.headers_mut();
        headers.insert(X_PROGRESS, progress(job));
        let monitor = link(&registry.config, At::Monitor(at.depth()), job.id, "");
        headers.insert(header::CONTENT_LOCATION, monitor);
    }
    response
}

/// The monitor of an ended job, where the dialect has it lead to the result.
pub(super) fn see_result<St>(job: &Snapshot, registry: &Registry<St>) -> Response<Replay> {
    let mut response = answer(job, registry);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let result = link(&registry.config, At::Monitor(0), job.id, "/result");
    response.headers_mut().insert(header::LOCATION, result);
    response
}

fn link(config: &Config, at: At<'_>, id: JobId, rest: &str) -> HeaderValue {
    let mut link = Vec::new();
    config.write_link(&mut link, at, &id.encode());
    link.extend_from_slice(rest.as_bytes());
    HeaderValue::try_from(link).expect("a link")
}

/// The answer to a request for `path` that has become a job (RFC 9110 §15.3.3).
pub(crate) fn accepted<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    now: Instant,
    applied: Option<HeaderValue>,
) -> Response<Replay> {
    let config = &registry.config;
    let mut sheet = Sheet::new(job, config);
    // One that is joined may have ended.
    let retry_after = (!job.status.is_ended()).then(|| job.retry_after(&registry.estimates, now));
    let retry_after = retry_after.map(|seconds| sheet.add(|text| write_number(text, seconds)));
    let (id, mut monitor) = (sheet.id, 0..0);
    let link = sheet.add(|text| {
        text.push(b'<');
        let start = text.len();
        config.write_link(text, At::Request(path), &id);
        monitor = start..text.len();
        text.extend_from_slice(b">; rel=\"monitor\"");
    });
    let operation = match registry.config.dialect {
        Dialect::Default => None,
        Dialect::Pending202 | Dialect::SeeOther => Some(sheet.add(|text| {
            text.extend_from_within(monitor.clone());
            text.extend_from_slice(b"/status");
        })),
    };
    let sheet = sheet.finish();
    let mut response = Response::new(sheet.body());
    *response.status_mut() = StatusCode::ACCEPTED;
    let monitor = sheet.value(monitor);
    let mut headers = ACCEPTED.clone();
    for (name, value) in &mut headers {
        *value = match name {
            _ if name == header::RETRY_AFTER => match &retry_after {
                Some(retry_after) => sheet.value(retry_after.clone()),
                None => continue,
            },
            _ if name == header::LOCATION => monitor.clone(),
            _ if name == header::LINK => sheet.value(link.clone()),
            _ if name == OPERATION_LOCATION => match &operation {
                Some(operation) => sheet.value(operation.clone()),
                None => monitor.clone(),
            },
            _ => continue,
        };
    }
    if retry_after.is_none() {
        headers.remove(header::RETRY_AFTER);
    }
    if config.dialect == Dialect::Pending202 {
        headers.insert(header::CONTENT_LOCATION, monitor);
    }
    if let Some(applied) = applied {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    *response.headers_mut() = headers;
    response
}

/// The same for a client that prefers a page: a browser shows what it is led to, under an address of
/// its own, and a reload posts nothing again.
pub(crate) fn see_page<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    now: Instant,
    applied: Option<HeaderValue>,
) -> Response<Replay> {
    let mut response = accepted(job, registry, path, now, applied);
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
    let mut response = answer(job, registry);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.remove(header::RETRY_AFTER);
    let page = link(&registry.config, At::Monitor(from.depth()), job.id, "");
    headers.insert(header::LOCATION, page);
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
