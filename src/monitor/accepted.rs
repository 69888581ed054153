//! The 202 for a request that has become a job (RFC 9110 §15.3.3).

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    response_buffer::ResponseBuffer,
    status::{JSON, NO_STORE, TO_FILL},
};
use crate::{
    config::{Dialect, LinkOrigin},
    job::{JobId, Snapshot},
    protocol::{PREFER, PREFERENCE_APPLIED},
    registry::Registry,
    store::ResultBody,
};

/// The monitor, for clients of Azure's convention.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// The fields of the 202. Cloning a map and filling it in takes half the instructions of seven
/// inserts.
static FIELDS: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, NO_STORE),
        (header::RETRY_AFTER, TO_FILL),
        (header::LOCATION, TO_FILL),
        (OPERATION_LOCATION, TO_FILL),
        (header::LINK, TO_FILL),
        (header::VARY, PREFER.into()),
    ])
});

/// Returns the 202 for a request for `path` that has become a job.
pub(crate) fn accepted<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    applied: Option<HeaderValue>,
) -> Response<ResultBody> {
    // A job that was joined may have ended.
    let retry_after = registry.show(job);
    respond(job, registry, path, applied, retry_after)
}

fn respond<St>(
    job: &Snapshot,
    registry: &Registry<St>,
    path: &str,
    applied: Option<HeaderValue>,
    retry_after: Option<u64>,
) -> Response<ResultBody> {
    let settings = &registry.settings;
    let mut buffer = ResponseBuffer::new(job, settings);
    let retry_after = retry_after.map(|seconds| buffer.add_number(seconds));
    let (id, mut monitor) = (buffer.id, 0..0);
    let link = buffer.add(|text| {
        text.push(b'<');
        let start = text.len();
        settings.write_link(text, LinkOrigin::Request(path), &id);
        monitor = start..text.len();
        text.extend_from_slice(b">; rel=\"monitor\"");
    });
    let operation = match settings.dialect {
        Dialect::Default => None,
        Dialect::Pending202 | Dialect::SeeOther => Some(buffer.add(|text| {
            text.extend_from_within(monitor.clone());
            text.extend_from_slice(b"/status");
        })),
    };
    let buffer = buffer.finish();
    let monitor = buffer.value(monitor);
    let mut headers = FIELDS.clone();
    for (name, value) in &mut headers {
        *value = match name {
            _ if name == header::RETRY_AFTER => match &retry_after {
                Some(retry_after) => buffer.value(retry_after.clone()),
                None => continue,
            },
            _ if name == header::LOCATION => monitor.clone(),
            _ if name == header::LINK => buffer.value(link.clone()),
            _ if name == OPERATION_LOCATION => match &operation {
                Some(operation) => buffer.value(operation.clone()),
                None => monitor.clone(),
            },
            _ => continue,
        };
    }
    if retry_after.is_none() {
        headers.remove(header::RETRY_AFTER);
    }
    if settings.dialect == Dialect::Pending202 {
        headers.insert(header::CONTENT_LOCATION, monitor);
    }
    if let Some(applied) = applied {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    let mut response = Response::new(buffer.body());
    *response.status_mut() = StatusCode::ACCEPTED;
    *response.headers_mut() = headers;
    response
}

/// Returns the `Link` to the monitor of a job, for the response to a request for `path`.
pub(crate) fn link<St>(registry: &Registry<St>, id: JobId, path: &str) -> HeaderValue {
    let mut link = vec![b'<'];
    let origin = LinkOrigin::Request(path);
    registry
        .settings
        .write_link(&mut link, origin, &id.encode());
    link.extend_from_slice(b">; rel=\"monitor\"");
    HeaderValue::try_from(link).expect("a link has only URI characters")
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
    registry.record_shown(job, 0);
    // In a 303, `Retry-After` would delay the redirect (RFC 9110 §10.2.3).
    let mut response = respond(job, registry, path, applied, None);
    *response.status_mut() = StatusCode::SEE_OTHER;
    response
        .headers_mut()
        .append(header::VARY, header::ACCEPT.into());
    response
}
