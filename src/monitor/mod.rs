//! The status monitor: the resources under the monitor's path.

mod conditional;
mod document;
mod events;
mod list;
mod page;
mod respond;
mod route;
mod service;
mod timestamp;
mod wait;

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use self::route::Resource;
pub use self::service::{Monitor, MonitorFuture};
pub(crate) use self::{
    respond::{accepted, see_page},
    route::Place,
    wait::wait,
};
use crate::{
    config::{Config, Dialect},
    job::{JobId, Snapshot},
    jobs::Registry,
    middleware::{MonitorBody, Replay},
    problem,
    problem::Problem,
    protocol::{Format, Mentions, PREFERENCE_APPLIED, Prefer},
    run::replay,
    store::{Lookup, Store},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What can make another answer of the same address.
const VARY: HeaderValue = HeaderValue::from_static("accept, prefer");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The monitor's answer. It never waits for the inner service.
#[must_use = "futures do nothing unless polled"]
pub(crate) enum Answer {
    /// It is there; until it has been taken.
    Now(Option<Response<MonitorBody>>),
    Later(Pin<Box<dyn Future<Output = Response<MonitorBody>> + Send>>),
}

impl Answer {
    pub(crate) fn now(response: Response<impl Into<MonitorBody>>) -> Self {
        Self::Now(Some(response.map(Into::into)))
    }

    pub(crate) fn later(
        answer: impl Future<Output = Response<MonitorBody>> + Send + 'static,
    ) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl Future for Answer {
    type Output = Response<MonitorBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(answer) => Poll::Ready(answer.take().expect("polled after its answer")),
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

/// Answers for the monitor: at once, where the store knows at once and nothing is to be waited for.
pub(crate) fn answer<St: Store>(registry: &Arc<Registry<St>>, place: Place, head: Parts) -> Answer {
    let is_head = head.method == Method::HEAD;
    let now = |response: Response<Replay>| Answer::now(measured(response.map(Into::into), is_head));
    let (id, resource) = match place {
        _ if head.method == Method::OPTIONS => return now(options(place)),
        Place::Nowhere => return now(Problem::NotFound.response()),
        Place::List => {
            let registry = registry.clone();
            return Answer::later(async move {
                let answer = list(&registry, &head).await;
                finished(answer, is_head)
            });
        }
        Place::Job(id, resource) => (id, resource),
    };
    let mut getting = registry.store.get(id);
    // Nobody is to be woken here: what is not known at once is asked for again by the task.
    match Pin::new(&mut getting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(found) => for_job(registry, found, resource, head),
        Poll::Pending => {
            let registry = registry.clone();
            Answer::later(async move { for_job(&registry, getting.await, resource, head).await })
        }
    }
}

fn for_job<St: Store>(
    registry: &Arc<Registry<St>>,
    found: Result<Lookup, St::Error>,
    resource: Resource,
    head: Parts,
) -> Answer {
    let is_head = head.method == Method::HEAD;
    match found.map(|found| job(registry, found, resource, &head)) {
        Ok(Reply::Document(mut response)) => {
            if is_head {
                *response.body_mut() = Replay::default().into();
            }
            Answer::now(response)
        }
        Ok(Reply::Other(response)) => Answer::now(measured(response, is_head)),
        Ok(Reply::Hidden) => {
            let registry = registry.clone();
            Answer::later(async move { finished(hidden(&registry).await, is_head) })
        }
        Ok(Reply::Later(action, job)) => {
            let registry = registry.clone();
            Answer::later(async move {
                let answer = act(&registry, action, job, resource, &head).await;
                finished(answer, is_head)
            })
        }
        Err(error) => {
            let failed = problem::store_failed(&error).map(Into::into);
            Answer::now(measured(failed, is_head))
        }
    }
}

/// What was answered, or that the store failed.
fn finished(
    answer: Result<Response<Replay>, impl Error + 'static>,
    is_head: bool,
) -> Response<MonitorBody> {
    let answer = answer.unwrap_or_else(|error| problem::store_failed(&error));
    measured(answer.map(Into::into), is_head)
}

/// An answer with its length, and to a HEAD without its body.
fn measured(mut response: Response<MonitorBody>, is_head: bool) -> Response<MonitorBody> {
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

/// What a request for a job comes to.
enum Reply {
    /// The status document, with its length.
    Document(Response<MonitorBody>),
    Other(Response<MonitorBody>),
    /// It is somebody else's.
    Hidden,
    /// Something is to be done first about the job.
    Later(Action, Box<Snapshot>),
}

enum Action {
    /// Show it, after the time that the client prefers to wait, or when its result has been found.
    Show(View),
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
    let refused = |problem: Problem| Reply::Other(problem.response().map(Into::into));
    let config = &registry.config;
    // To anyone but its owner a job is not there, nor was it ever.
    let owner = match &found {
        Lookup::Found(job) => job.owner,
        Lookup::Gone(owner) => *owner,
        Lookup::Unknown => None,
    };
    let is_somebody_elses = owner.is_some() && owner != config.owner(head);
    let job = match found {
        _ if is_somebody_elses => return Reply::Hidden,
        Lookup::Found(job) => job,
        Lookup::Gone(_) => return refused(Problem::Gone),
        Lookup::Unknown => return refused(Problem::NotFound),
    };
    job.teach(&registry.estimates);
    let mentions = Mentions::of(&head.headers);
    let format = match mentions.accept {
        true => Format::preferred(&head.headers),
        false => Format::Json,
    };
    let is_page = format == Format::Page;
    match (resource, &head.method) {
        (Resource::Events, &Method::GET | &Method::HEAD) => {
            Reply::Other(events::follow(registry, &job, head))
        }
        (Resource::Monitor, &Method::GET | &Method::HEAD) if format == Format::Events => {
            Reply::Other(events::follow(registry, &job, head))
        }
        (Resource::Monitor | Resource::Status | Resource::Result, &Method::GET | &Method::HEAD) => {
            let view = View::new(resource, is_page, config);
            let waits =
                mentions.prefer && Prefer::of(&head.headers, config.max_wait).wait.is_some();
            if waits || view.is_result(&job) {
                return Reply::Later(Action::Show(view), job);
            }
            let response = view.show(&job, registry, head).map(Into::into);
            match view {
                View::Document => Reply::Document(response),
                _ => Reply::Other(response),
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

/// What somebody else's job is answered with: as one that is not there, and in as much time as the store takes
/// to tell that.
async fn hidden<St: Store>(registry: &Registry<St>) -> Result<Response<Replay>, St::Error> {
    registry.store.get(JobId::random()).await?;
    Ok(Problem::NotFound.response())
}

async fn act<St: Store>(
    registry: &Registry<St>,
    action: Action,
    job: Box<Snapshot>,
    resource: Resource,
    head: &Parts,
) -> Result<Response<Replay>, St::Error> {
    let (store, config) = (&registry.store, &registry.config);
    Ok(match action {
        Action::Show(view) => return show(registry, *job, view, head).await,
        Action::Forget => {
            store.forget(job.id).await?;
            deleted(config)
        }
        Action::Cancel { is_page } => match store.cancel(job.id).await? {
            Lookup::Found(job) if is_page => respond::back_to_page(&job, resource, registry),
            Lookup::Found(job) => respond::answer(&job, registry),
            Lookup::Gone(_) => Problem::Gone.response(),
            Lookup::Unknown => Problem::NotFound.response(),
        },
    })
}

/// Answers a GET, after the time that the client prefers to wait.
async fn show<St: Store>(
    registry: &Registry<St>,
    job: Snapshot,
    view: View,
    head: &Parts,
) -> Result<Response<Replay>, St::Error> {
    let config = &registry.config;
    let prefer = Prefer::of(&head.headers, config.max_wait);
    let job = match prefer.wait {
        None => job,
        // For a change where the client says what it has, else for the end.
        Some(limit) => {
            let says = view == View::Document && head.headers.contains_key(header::IF_NONE_MATCH);
            let wanted = |job: &Snapshot| {
                job.status.is_ended() || (says && !respond::is_known(job, &head.headers))
            };
            wait(registry, job, limit, wanted).await
        }
    };
    let mut response = match view.is_result(&job) {
        false => view.show(&job, registry, head),
        true => {
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

/// What a GET is shown of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Page,
    Document,
    /// The document as 202, then a redirect to the result.
    WayToResult(Resource),
    /// The document as 202, then the result.
    Result(Resource),
}

impl View {
    fn new(resource: Resource, is_page: bool, config: &Config) -> Self {
        match (resource, config.dialect) {
            (Resource::Monitor, _) if is_page => Self::Page,
            (Resource::Status, _) | (Resource::Monitor, Dialect::Default) => Self::Document,
            (Resource::Monitor, Dialect::SeeOther) => Self::WayToResult(resource),
            _ => Self::Result(resource),
        }
    }

    /// Whether it is the job's result, which is the store's to give.
    fn is_result(self, job: &Snapshot) -> bool {
        matches!(self, Self::Result(_)) && job.status.is_ended()
    }

    fn show<St>(self, job: &Snapshot, registry: &Registry<St>, head: &Parts) -> Response<Replay> {
        match self {
            Self::Page => {
                let (page, etag) = page::page(job, registry);
                conditional::tagged(page, &etag, head)
            }
            Self::Document => respond::tagged(job, registry, head),
            Self::WayToResult(_) if job.status.is_ended() => respond::see_result(job, registry),
            Self::WayToResult(at) | Self::Result(at) => respond::pending(job, at, registry),
        }
    }
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
