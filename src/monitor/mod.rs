//! The status monitor: the resources under the monitor's path.

mod conditional;
mod document;
mod events;
mod list;
mod page;
mod place;
mod service;
mod status;
mod wait;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use self::place::Resource;
pub use self::service::{Monitor, MonitorFuture};
pub(crate) use self::{
    place::Place,
    status::{accepted, see_page},
    wait::wait,
};
use crate::{
    body::{MonitorBody, Replay},
    dialect::Dialect,
    job::{JobId, Snapshot},
    jobs::{Config, Registry},
    negotiate::Format,
    prefer::{PREFERENCE_APPLIED, Prefer},
    problem::{self, Problem},
    replay,
    store::{Lookup, Store},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What can make another answer of the same address.
const VARY: HeaderValue = HeaderValue::from_static("accept, prefer");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Answers for the monitor. It never waits for the inner service.
pub(crate) async fn answer<St: Store>(
    registry: Arc<Registry<St>>,
    place: Place,
    head: Parts,
) -> Response<MonitorBody> {
    let answer = match place {
        _ if head.method == Method::OPTIONS => Ok(options(place).map(Into::into)),
        Place::Nowhere => Ok(Problem::NotFound.response().map(Into::into)),
        Place::List => list(&registry, &head)
            .await
            .map(|list| list.map(Into::into)),
        Place::Job(id, resource) => job(&registry, id, resource, &head).await,
    };
    let mut response = answer.unwrap_or_else(|error| problem::store_failed(&error).map(Into::into));
    let is_head = head.method == Method::HEAD;
    // Trailers need a message that is not framed by its length; to a HEAD there is none to frame.
    let has_length = replay::has_length(response.status());
    let body = response.body().as_replay().filter(|_| has_length);
    let body = body.filter(|body| is_head || !body.has_trailers());
    if let Some(length) = body.map(Replay::len) {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    if is_head {
        *response.body_mut() = Replay::default().into();
    }
    response
}

async fn list<St: Store>(
    registry: &Registry<St>,
    head: &Parts,
) -> Result<Response<Replay>, St::Error> {
    match (&head.method, registry.config.owner(head)) {
        (&Method::GET | &Method::HEAD, Some(owner)) => list::list(registry, owner, head).await,
        // Whoever is nobody has no jobs to list.
        (&Method::GET | &Method::HEAD, None) => Ok(Problem::NotFound.response()),
        _ => Ok(Problem::MethodNotAllowed(Place::List.allow()).response()),
    }
}

async fn job<St: Store>(
    registry: &Arc<Registry<St>>,
    id: JobId,
    resource: Resource,
    head: &Parts,
) -> Result<Response<MonitorBody>, St::Error> {
    let (store, config) = (&registry.store, &registry.config);
    let lookup = store.get(id).await?;
    // To anyone but its owner a job is not there, nor was it ever.
    let owner = match &lookup {
        Lookup::Found(job) => job.owner,
        Lookup::Gone(owner) => *owner,
        Lookup::Unknown => None,
    };
    let is_somebody_elses = owner.is_some() && owner != config.owner(head);
    let job = match lookup {
        _ if is_somebody_elses => return Ok(Problem::NotFound.response().map(Into::into)),
        Lookup::Found(job) => job,
        Lookup::Gone(_) => return Ok(Problem::Gone.response().map(Into::into)),
        Lookup::Unknown => return Ok(Problem::NotFound.response().map(Into::into)),
    };
    let is_get = head.method == Method::GET || head.method == Method::HEAD;
    let format = Format::preferred(&head.headers);
    let response = match resource {
        Resource::Events if is_get => return Ok(events::follow(registry, &job, head)),
        Resource::Monitor if is_get && format == Format::Events => {
            return Ok(events::follow(registry, &job, head));
        }
        Resource::Monitor | Resource::Status | Resource::Result if is_get => {
            let is_page = resource == Resource::Monitor && format == Format::Page;
            show(registry, job, resource, is_page, head).await?
        }
        Resource::Monitor if head.method == Method::DELETE => {
            if is_cross_site(head) {
                Problem::CrossSite.response()
            } else {
                store.forget(id).await?;
                deleted(config)
            }
        }
        Resource::Cancel if head.method == Method::POST => {
            if is_cross_site(head) {
                Problem::CrossSite.response()
            } else {
                match store.cancel(id).await? {
                    Lookup::Found(job) if format == Format::Page => {
                        status::back_to_page(&job, resource, registry)
                    }
                    Lookup::Found(job) => status::document(&job, registry),
                    Lookup::Gone(_) => Problem::Gone.response(),
                    Lookup::Unknown => Problem::NotFound.response(),
                }
            }
        }
        _ => {
            let allow = Place::Job(id, resource).allow();
            Problem::MethodNotAllowed(allow).response()
        }
    };
    Ok(response.map(Into::into))
}

/// Answers a GET, after the time that the client prefers to wait.
async fn show<St: Store>(
    registry: &Registry<St>,
    job: Snapshot,
    resource: Resource,
    is_page: bool,
    head: &Parts,
) -> Result<Response<Replay>, St::Error> {
    let config = &registry.config;
    let shows_document = !is_page
        && (resource == Resource::Status
            || (resource == Resource::Monitor && config.dialect == Dialect::Default));
    let prefer = Prefer::of(&head.headers);
    let job = match prefer.wait {
        None => job,
        // For a change where the client says what it has, else for the end.
        Some(limit) => {
            let limit = limit.min(config.max_wait);
            let says = shows_document && head.headers.contains_key(header::IF_NONE_MATCH);
            let has = |job: &Snapshot| conditional::has(&head.headers, &status::etag(job));
            let wanted = |job: &Snapshot| job.status.is_ended() || (says && !has(job));
            wait(&registry.store, job, limit, wanted).await
        }
    };
    let mut response = if is_page {
        let (page, etag) = page::page(&job, registry);
        conditional::tagged(page, &etag, head)
    } else if shows_document {
        conditional::tagged(status::document(&job, registry), &status::etag(&job), head)
    } else if !job.status.is_ended() {
        status::pending(&job, resource, registry)
    } else if resource == Resource::Monitor && config.dialect == Dialect::SeeOther {
        status::see_result(&job, registry)
    } else {
        result(registry, &job, head).await?
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, VARY);
    if let Some(applied) = prefer.applied(false, config.max_wait) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// The answer to a GET for the result of an ended job.
async fn result<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
    head: &Parts,
) -> Result<Response<Replay>, St::Error> {
    let Some(mut response) = kept(registry, job).await? else {
        return Ok(no_outcome(job));
    };
    let status = HeaderValue::from(response.status().as_u16());
    response.headers_mut().insert(replay::ASYNC_RESULT, status);
    Ok(conditional::apply(head, response))
}

/// The response that a job has ended with, or what stands for it.
pub(crate) async fn outcome<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
) -> Result<Response<Replay>, St::Error> {
    let response = kept(registry, job).await?;
    Ok(response.unwrap_or_else(|| no_outcome(job)))
}

async fn kept<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
) -> Result<Option<Response<Replay>>, St::Error> {
    let mut response = registry.store.result(job.id).await?;
    if let Some(response) = &mut response {
        let is_owned = job.owner.is_some();
        replay::complete(response.headers_mut(), &registry.config, is_owned);
    }
    Ok(response)
}

fn no_outcome(job: &Snapshot) -> Response<Replay> {
    match &job.error {
        Some(failure) if job.response.is_none() => problem::no_result(failure),
        // It was there a moment ago.
        _ => Problem::Gone.response(),
    }
}

/// Whether a browser says that a page of another site sends this.
fn is_cross_site(head: &Parts) -> bool {
    let site = head.headers.get(SEC_FETCH_SITE);
    site.is_some_and(|site| site == "cross-site")
}

fn options(place: Place) -> Response<Replay> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let allow = HeaderValue::from_static(place.allow());
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn deleted(config: &Config) -> Response<Replay> {
    empty(match config.dialect {
        Dialect::Pending202 => StatusCode::ACCEPTED,
        Dialect::Default | Dialect::SeeOther => StatusCode::NO_CONTENT,
    })
}

fn empty(status: StatusCode) -> Response<Replay> {
    let mut response = Response::new(Replay::default());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}
