//! The status monitor: the resources under the monitor's path.

mod conditional;
mod document;
mod events;
mod list;
mod page;
mod place;
mod service;
mod status;
mod timestamp;
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
    job::Snapshot,
    jobs::{Config, Registry},
    mentions::Mentions,
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
///
/// A block rather than an `async fn`, which has room for its arguments twice; and what seldom takes
/// time has a box of its own.
pub(crate) fn answer<St: Store>(
    registry: Arc<Registry<St>>,
    place: Place,
    head: Parts,
) -> impl Future<Output = Response<MonitorBody>> {
    async move {
        let answer = match place {
            _ if head.method == Method::OPTIONS => Ok(options(place).map(Into::into)),
            Place::Nowhere => Ok(Problem::NotFound.response().map(Into::into)),
            Place::List => Box::pin(list(&registry, &head))
                .await
                .map(|list| list.map(Into::into)),
            Place::Job(id, resource) => {
                let found = registry.store.get(id).await;
                let reply = found.map(|found| job(&registry, found, resource, &head));
                match reply {
                    Ok(Reply::Now(response)) => Ok(response),
                    Ok(Reply::Later(action, job)) => {
                        let later = act(&registry, action, job, resource, &head);
                        Box::pin(later).await.map(|answer| answer.map(Into::into))
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let answer =
            answer.unwrap_or_else(|error| problem::store_failed(&error).map(MonitorBody::from));
        measured(answer, head.method == Method::HEAD)
    }
}

/// An answer with its length, and to a HEAD without its body.
fn measured(mut response: Response<MonitorBody>, is_head: bool) -> Response<MonitorBody> {
    // Trailers need a message that is not framed by its length; to a HEAD there is none to frame.
    let has_length = replay::has_length(response.status());
    let is_told = response.headers().contains_key(header::CONTENT_LENGTH);
    let body = response
        .body()
        .as_replay()
        .filter(|_| has_length && !is_told);
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

/// What a request for a job comes to.
enum Reply {
    Now(Response<MonitorBody>),
    /// Something is to be done first about the job, of which this is known.
    Later(Action, Snapshot),
}

enum Action {
    /// Show it, after the time that the client prefers to wait, or when its result has been found.
    Show {
        is_page: bool,
    },
    Forget,
    Cancel {
        is_page: bool,
    },
}

fn job<St: Store>(
    registry: &Arc<Registry<St>>,
    found: Lookup,
    resource: Resource,
    head: &Parts,
) -> Reply {
    let refused = |problem: Problem| Reply::Now(problem.response().map(Into::into));
    let config = &registry.config;
    // To anyone but its owner a job is not there, nor was it ever.
    let owner = match &found {
        Lookup::Found(job) => job.owner,
        Lookup::Gone(owner) => *owner,
        Lookup::Unknown => None,
    };
    let is_somebody_elses = owner.is_some() && owner != config.owner(head);
    let job = match found {
        _ if is_somebody_elses => return refused(Problem::NotFound),
        Lookup::Found(job) => job,
        Lookup::Gone(_) => return refused(Problem::Gone),
        Lookup::Unknown => return refused(Problem::NotFound),
    };
    let mentions = Mentions::of(&head.headers);
    let format = match mentions.accept {
        true => Format::preferred(&head.headers),
        false => Format::Json,
    };
    let is_page = format == Format::Page;
    match (resource, &head.method) {
        (Resource::Events, &Method::GET | &Method::HEAD) => {
            Reply::Now(events::follow(registry, &job, head))
        }
        (Resource::Monitor, &Method::GET | &Method::HEAD) if format == Format::Events => {
            Reply::Now(events::follow(registry, &job, head))
        }
        (Resource::Monitor | Resource::Status | Resource::Result, &Method::GET | &Method::HEAD) => {
            let is_page = is_page && resource == Resource::Monitor;
            let waits =
                mentions.prefer && Prefer::of(&head.headers, config.max_wait).wait.is_some();
            let shown = (!waits).then(|| view(&job, config, resource, is_page, head));
            match shown.flatten() {
                Some(response) => Reply::Now(response.map(Into::into)),
                None => Reply::Later(Action::Show { is_page }, job),
            }
        }
        (Resource::Monitor, &Method::DELETE) | (Resource::Cancel, &Method::POST)
            if is_cross_site(head) =>
        {
            refused(Problem::CrossSite)
        }
        (Resource::Monitor, &Method::DELETE) => Reply::Later(Action::Forget, job),
        (Resource::Cancel, &Method::POST) => Reply::Later(Action::Cancel { is_page }, job),
        _ => refused(Problem::MethodNotAllowed(
            Place::Job(job.id, resource).allow(),
        )),
    }
}

async fn act<St: Store>(
    registry: &Registry<St>,
    action: Action,
    job: Snapshot,
    resource: Resource,
    head: &Parts,
) -> Result<Response<Replay>, St::Error> {
    let (store, config) = (&registry.store, &registry.config);
    Ok(match action {
        Action::Show { is_page } => return show(registry, job, resource, is_page, head).await,
        Action::Forget => {
            store.forget(job.id).await?;
            deleted(config)
        }
        Action::Cancel { is_page } => match store.cancel(job.id).await? {
            Lookup::Found(job) if is_page => status::back_to_page(&job, resource, config),
            Lookup::Found(job) => status::answer(&job, config),
            Lookup::Gone(_) => Problem::Gone.response(),
            Lookup::Unknown => Problem::NotFound.response(),
        },
    })
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
    let prefer = Prefer::of(&head.headers, config.max_wait);
    let job = match prefer.wait {
        None => job,
        // For a change where the client says what it has, else for the end.
        Some(limit) => {
            let says = !is_page
                && shows_document(resource, config)
                && head.headers.contains_key(header::IF_NONE_MATCH);
            let wanted = |job: &Snapshot| {
                job.status.is_ended() || (says && !status::is_known(job, &head.headers))
            };
            wait(&registry.store, job, limit, wanted).await
        }
    };
    let mut response = match view(&job, config, resource, is_page, head) {
        Some(response) => response,
        None => {
            let mut result = result(registry, &job, head).await?;
            // Beside what it says itself.
            result.headers_mut().append(header::VARY, VARY);
            result
        }
    };
    if let Some(applied) = prefer.applied(false) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// What a GET is shown of a job; `None` where that is its result.
fn view(
    job: &Snapshot,
    config: &Config,
    resource: Resource,
    is_page: bool,
    head: &Parts,
) -> Option<Response<Replay>> {
    Some(if is_page {
        let (page, etag) = page::page(job, config);
        conditional::tagged(page, &etag, head)
    } else if shows_document(resource, config) {
        status::tagged(job, config, head)
    } else if !job.status.is_ended() {
        status::pending(job, resource, config)
    } else if resource == Resource::Monitor && config.dialect == Dialect::SeeOther {
        status::see_result(job, config)
    } else {
        return None;
    })
}

fn shows_document(resource: Resource, config: &Config) -> bool {
    let is_monitor = resource == Resource::Monitor;
    resource == Resource::Status || (is_monitor && config.dialect == Dialect::Default)
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
    let headers = response.headers_mut();
    headers.insert(replay::ASYNC_RESULT, status);
    // That of what is sent now, which may be a part, is told last.
    headers.remove(header::CONTENT_LENGTH);
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
