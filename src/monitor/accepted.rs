//! The 202 for a request that has become a job (RFC 9110 §15.3.3).

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    document::document_from,
    status::{JSON, NO_STORE},
};
use crate::{
    config::{Dialect, LinkOrigin},
    job::Snapshot,
    protocol::{PREFER, PREFERENCE_APPLIED},
    registry::Registry,
    store::ResultBody,
};

/// The monitor, for clients of Azure's convention.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// The number of fields that there is room for in the head, so that it does not grow.
const HEAD_CAPACITY: usize = 12;

/// Returns the 202 for a request for `path` that has become a job.
///
/// Its document and links are in one buffer, which body and fields share.
pub(crate) fn accepted<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    applied: Option<HeaderValue>,
) -> Response<ResultBody> {
    let settings = &registry.settings;
    let id = job.id.encode();
    let mut text = document_from(LinkOrigin::Document, &id, job, settings);
    let document = 0..text.len();
    text.push(b'<');
    let monitor = append(&mut text, |text| {
        settings.write_link(text, LinkOrigin::Request(path), &id);
    });
    text.extend_from_slice(b">; rel=\"monitor\"");
    let link = document.end..text.len();
    let operation = match settings.dialect {
        Dialect::Default => monitor.clone(),
        Dialect::Pending202 | Dialect::SeeOther => append(&mut text, |text| {
            text.extend_from_within(monitor.clone());
            text.extend_from_slice(b"/status");
        }),
    };
    let text = Bytes::from(text);
    let value = |range: Range<usize>| {
        let value = HeaderValue::from_maybe_shared(text.slice(range));
        value.expect("a link has only URI characters")
    };
    let monitor = value(monitor);
    let mut headers = HeaderMap::with_capacity(HEAD_CAPACITY);
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    // A job that was joined may have ended.
    if !job.status.is_ended() {
        let seconds = job.retry_after(&registry.estimates);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    headers.insert(header::LOCATION, monitor.clone());
    headers.insert(OPERATION_LOCATION, value(operation));
    headers.insert(header::LINK, value(link));
    headers.insert(header::VARY, PREFER.into());
    if settings.dialect == Dialect::Pending202 {
        headers.insert(header::CONTENT_LOCATION, monitor);
    }
    if let Some(applied) = applied {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    let mut response = Response::new(ResultBody::new(text.slice(document), None));
    *response.status_mut() = StatusCode::ACCEPTED;
    *response.headers_mut() = headers;
    response
}

/// Appends text, and returns where it is.
fn append(text: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    let start = text.len();
    write(text);
    start..text.len()
}

/// Redirects a client that prefers a page to the monitor, instead of a 202.
///
/// The browser shows the page under its own URI, and a reload does not post the request again.
pub(crate) fn see_page<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    applied: Option<HeaderValue>,
) -> Response<ResultBody> {
    let mut response = accepted(job, registry, path, applied);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    // With a 303 it would delay the redirect (RFC 9110 §10.2.3).
    headers.remove(header::RETRY_AFTER);
    headers.append(header::VARY, header::ACCEPT.into());
    response
}
