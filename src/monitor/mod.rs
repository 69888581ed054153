//! The status monitor: the resources under the monitor's path.

mod document;
mod service;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use self::document::document;
pub use self::service::{Monitor, MonitorFuture};
use crate::{
    body::Replay,
    estimate,
    job::{JobId, Snapshot},
    jobs::{Config, Registry},
    prefer::{PREFER, PREFERENCE_APPLIED},
    problem::{self, Problem},
    replay,
    store::{Lookup, Store},
};

/// Where clients of Azure's convention look for the monitor.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What follows the monitor's path in `path`, without the slash between; `None` where the path is not
/// the monitor's.
pub(crate) fn rest<'a>(config: &Config, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(config.monitor_path.as_str())?
        .strip_prefix('/')
}

/// What somebody asks of the monitor.
#[derive(Debug)]
pub(crate) struct Question {
    method: Method,
    /// Which job, and what of it; `None` for what can't be one.
    resource: Option<(JobId, Resource)>,
    cross_site: bool,
}

/// What there is of each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Status,
    Result,
    Cancel,
}

impl Question {
    /// `rest` is what follows the monitor's path.
    pub(crate) fn new<B>(rest: &str, request: &Request<B>) -> Self {
        let (id, resource) = match rest.split_once('/') {
            None => (rest, Some(Resource::Status)),
            Some((id, "result")) => (id, Some(Resource::Result)),
            Some((id, "cancel")) => (id, Some(Resource::Cancel)),
            Some((id, _)) => (id, None),
        };
        let site = request.headers().get(SEC_FETCH_SITE);
        Self {
            method: request.method().clone(),
            resource: id.parse().ok().zip(resource),
            cross_site: site.is_some_and(|site| site == "cross-site"),
        }
    }
}

impl Resource {
    fn allow(self) -> &'static str {
        match self {
            Self::Status => "GET, HEAD, DELETE, OPTIONS",
            Self::Result => "GET, HEAD, OPTIONS",
            Self::Cancel => "POST, OPTIONS",
        }
    }
}

/// Answers for the monitor. It never waits for the inner service.
pub(crate) async fn answer<St: Store>(
    registry: Arc<Registry<St>>,
    question: Question,
) -> Response<Replay> {
    let is_head = question.method == Method::HEAD;
    let mut response = match look(&registry, question).await {
        Ok(response) => response,
        Err(error) => problem::store_failed(&error),
    };
    let body = response.body();
    // Trailers need a message that is not framed by its length; to a HEAD there is none to frame.
    if replay::has_length(response.status()) && (is_head || !body.has_trailers()) {
        let length = HeaderValue::from(body.len());
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    if is_head {
        *response.body_mut() = Replay::default();
    }
    response
}

async fn look<St: Store>(
    registry: &Registry<St>,
    question: Question,
) -> Result<Response<Replay>, St::Error> {
    let (store, config) = (&registry.store, &registry.config);
    let Some((id, resource)) = question.resource else {
        return Ok(Problem::NotFound.response());
    };
    let unsafe_method = !question.method.is_safe();
    let lookup = match (resource, question.method) {
        (_, Method::OPTIONS) => return Ok(options(resource)),
        (Resource::Status, Method::DELETE) | (Resource::Cancel, Method::POST)
            if question.cross_site && unsafe_method =>
        {
            return Ok(Problem::CrossSite.response());
        }
        (Resource::Status, Method::DELETE) => {
            return Ok(match store.forget(id).await? {
                Lookup::Found(_) => no_content(),
                Lookup::Gone => Problem::Gone.response(),
                Lookup::Unknown => Problem::NotFound.response(),
            });
        }
        (Resource::Cancel, Method::POST) => store.cancel(id).await?,
        (Resource::Status | Resource::Result, Method::GET | Method::HEAD) => store.get(id).await?,
        _ => return Ok(Problem::MethodNotAllowed(resource.allow()).response()),
    };
    let job = match lookup {
        Lookup::Found(job) => job,
        Lookup::Gone => return Ok(Problem::Gone.response()),
        Lookup::Unknown => return Ok(Problem::NotFound.response()),
    };
    if resource != Resource::Result {
        return Ok(status(&job, config));
    }
    if !job.status.is_ended() {
        let mut response = status(&job, config);
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    if let Some(mut response) = store.result(id).await? {
        replay::complete(response.status(), response.headers_mut(), config);
        return Ok(response);
    }
    Ok(match &job.error {
        Some(failure) if job.response.is_none() => problem::no_result(failure),
        // It was there a moment ago.
        _ => Problem::Gone.response(),
    })
}

/// The answer to a request that has become a job (RFC 9110 §15.3.3) and is so old.
pub(crate) fn accepted(
    config: &Config,
    job: &Snapshot,
    age: Duration,
    prefers_async: bool,
) -> Response<Replay> {
    let link = config.link(job.id);
    let body = Replay::new(document(job, &link).into(), None);
    let mut headers = ACCEPTED.clone();
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.insert(header::RETRY_AFTER, retry_after(age));
    let monitor = ["<", &link, ">; rel=\"monitor\""].concat();
    let monitor = HeaderValue::try_from(monitor);
    if let (Ok(location), Ok(monitor)) = (HeaderValue::try_from(link), monitor) {
        headers.insert(header::LOCATION, location.clone());
        headers.insert(OPERATION_LOCATION, location);
        headers.insert(header::LINK, monitor);
    }
    if prefers_async {
        let applied = HeaderValue::from_static("respond-async");
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::ACCEPTED;
    *response.headers_mut() = headers;
    response
}

/// The fields of every 202, some still to be filled in.
///
/// A copy of them takes no more than there are. A map that eight fields are put into one by one takes
/// 1,248 bytes, and for more than a kilobyte glibc's allocator takes its slow way.
static ACCEPTED: LazyLock<HeaderMap> = LazyLock::new(|| {
    let later = HeaderValue::from_static("");
    HeaderMap::from_iter([
        (header::LOCATION, later.clone()),
        (OPERATION_LOCATION, later.clone()),
        (header::LINK, later.clone()),
        (header::RETRY_AFTER, later.clone()),
        (header::VARY, PREFER.into()),
        (header::CACHE_CONTROL, NO_STORE),
        (header::CONTENT_TYPE, JSON),
        (header::CONTENT_LENGTH, later),
    ])
});

/// The status document, and when to ask again.
fn status(job: &Snapshot, config: &Config) -> Response<Replay> {
    let json = Bytes::from(document(job, &config.link(job.id)));
    let mut response = Response::new(Replay::new(json, None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if !job.status.is_ended() {
        let age = job.created.elapsed();
        headers.insert(header::RETRY_AFTER, retry_after(age));
    }
    response
}

fn retry_after(age: Duration) -> HeaderValue {
    match estimate::retry_after(age) {
        1 => HeaderValue::from_static("1"),
        seconds => seconds.into(),
    }
}

fn options(resource: Resource) -> Response<Replay> {
    let mut response = no_content();
    let allow = HeaderValue::from_static(resource.allow());
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn no_content() -> Response<Replay> {
    let mut response = Response::new(Replay::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, NO_STORE);
    response
}
