//! Responds to requests for the monitor: the one road for all of its resources.

use std::{future::Future, pin::Pin, sync::Arc};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use super::{
    body::MonitorBody,
    callbacks, events, list, message, page, precondition, result,
    route::{Resource, Route},
    status, stream,
    wait::wait,
};
use crate::{
    config::{Dialect, Settings},
    job::{JobId, Snapshot},
    problem::{Problem, log_store_error},
    protocol::{Format, PREFERENCE_APPLIED, Prefer, RequestHeaders, has_length},
    registry::Registry,
    store::{Lookup, ResultBody, Store},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A response of the monitor. It never waits for the inner service.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<MonitorBody>> + Send>>;

type Responded<St> = Result<Reply, <St as Store>::Error>;

/// A response, and whether it has its `Content-Length` already.
struct Reply {
    response: Response<MonitorBody>,
    has_length: bool,
}

impl<B: Into<MonitorBody>> From<Response<B>> for Reply {
    fn from(response: Response<B>) -> Self {
        Self {
            response: response.map(Into::into),
            has_length: false,
        }
    }
}

/// Responds to a request for the monitor.
pub(crate) fn answer<St: Store>(registry: &Arc<Registry<St>>, route: Route, head: Parts) -> Answer {
    let registry = registry.clone();
    Box::pin(async move {
        let responded = respond(&registry, route, &head).await;
        let mut reply = responded.unwrap_or_else(|error| {
            log_store_error(&error);
            Problem::StoreUnavailable.response().into()
        });
        registry.hasten(&mut reply.response);
        let is_head = head.method == Method::HEAD;
        if !reply.has_length {
            add_length(&mut reply.response, is_head);
        }
        if is_head {
            *reply.response.body_mut() = ResultBody::default().into();
        }
        reply.response
    })
}

async fn respond<St: Store>(
    registry: &Arc<Registry<St>>,
    route: Route,
    head: &Parts,
) -> Responded<St> {
    if head.method == Method::OPTIONS {
        return Ok(options(route).into());
    }
    let (id, resource) = match route {
        Route::Nowhere => return Ok(refuse(Problem::NotFound)),
        Route::List => return respond_list(registry, head).await,
        Route::CallbacksKey => {
            return Ok(match head.method {
                Method::GET | Method::HEAD => callbacks::keys(registry).into(),
                _ => refuse(Problem::MethodNotAllowed(route.allow())),
            });
        }
        Route::Job(id, resource) => (id, resource),
    };
    let found = registry.store.get(id).await?;
    let settings = &registry.settings;
    let owner = match &found {
        Lookup::Found(job) => job.owner,
        Lookup::Gone(owner) => *owner,
        Lookup::Unknown => None,
    };
    if owner.is_some() && owner != settings.owner(head) {
        // Like an unknown job, and in as much time as the store takes to look one up.
        registry.store.get(JobId::random()).await?;
        return Ok(refuse(Problem::NotFound));
    }
    let job = match found {
        Lookup::Found(job) => job,
        Lookup::Gone(_) => {
            registry.awaited.taken(id);
            return Ok(refuse(Problem::Gone));
        }
        Lookup::Unknown => return Ok(refuse(Problem::NotFound)),
    };
    job.teach(&registry.estimates);
    let headers = RequestHeaders::new(&head.headers);
    let format = headers.format(&head.headers);
    let is_page = format == Format::Page;
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    match (resource, &head.method) {
        (Resource::Events, _) if is_read => Ok(respond_events(registry, &job, head)),
        (Resource::Monitor, _) if is_read && format == Format::Events => {
            Ok(respond_events(registry, &job, head))
        }
        (Resource::Monitor | Resource::Status | Resource::Result, _) if is_read => {
            let prefer = headers.prefer(&head.headers, settings.max_wait);
            let view = View::new(resource, is_page, settings);
            let is_conditional = headers.is_conditional;
            respond_read(registry, job, view, format, prefer, is_conditional, head).await
        }
        (Resource::Stream, _) if is_read => {
            let prefer = headers.prefer(&head.headers, settings.max_wait);
            let limit = prefer.wait.unwrap_or(settings.max_wait);
            let stream = stream::stream(registry, job, limit, is_page, head);
            let mut response = Box::pin(stream).await?;
            if let Some(applied) = prefer.applied(false) {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
            Ok(response.into())
        }
        (Resource::Callbacks, _) if is_read => {
            Ok(Box::pin(callbacks::callbacks(registry, &job)).await?.into())
        }
        (Resource::Cancel, &Method::POST) if is_forged(head, settings) => {
            Ok(refuse(Problem::CrossSite))
        }
        // A browser sends a cross-site DELETE only after a preflight that allows it (CORS).
        (Resource::Monitor, &Method::DELETE) => {
            let revisions = precondition::revisions(&head.headers);
            Ok(match registry.store.forget(job.id, &revisions).await? {
                Some(_) => {
                    registry.awaited.taken(id);
                    status::deleted(id, settings).into()
                }
                None => refuse(Problem::PreconditionFailed),
            })
        }
        (Resource::Cancel, &Method::POST) => {
            let revisions = precondition::revisions(&head.headers);
            let canceled = match registry.store.cancel(job.id, &revisions).await? {
                Some(Lookup::Found(job)) if is_page => {
                    status::back_to_page(&job, resource, registry)
                }
                Some(Lookup::Found(job)) => status::document_response(&job, registry),
                Some(Lookup::Gone(_)) => return Ok(refuse(Problem::Gone)),
                Some(Lookup::Unknown) => return Ok(refuse(Problem::NotFound)),
                None => return Ok(refuse(Problem::PreconditionFailed)),
            };
            Ok(canceled.into())
        }
        _ => Ok(refuse(Problem::MethodNotAllowed(route.allow()))),
    }
}

fn respond_events<St: Store>(registry: &Arc<Registry<St>>, job: &Snapshot, head: &Parts) -> Reply {
    precondition::check(head, events::follow(registry, job, head)).into()
}

async fn respond_list<St: Store>(registry: &Registry<St>, head: &Parts) -> Responded<St> {
    match (&head.method, registry.settings.owner(head)) {
        (&Method::GET | &Method::HEAD, Some(owner)) => {
            let list = Box::pin(list::list(registry, owner, head)).await?;
            Ok(precondition::check(head, list).into())
        }
        // A request without an owner has no jobs to list.
        (&Method::GET | &Method::HEAD, None) => Ok(refuse(Problem::NotFound)),
        _ => Ok(refuse(Problem::MethodNotAllowed(Route::List.allow()))),
    }
}

/// Responds to a GET for a job, after the time that the client prefers to wait.
async fn respond_read<St: Store>(
    registry: &Registry<St>,
    mut job: Box<Snapshot>,
    view: View,
    format: Format,
    prefer: Prefer,
    is_conditional: bool,
    head: &Parts,
) -> Responded<St> {
    if let Some(limit) = prefer.wait {
        // With `If-None-Match` for a change, otherwise for the end.
        let awaits_change =
            view == View::Document && head.headers.contains_key(header::IF_NONE_MATCH);
        let is_done = |job: &Snapshot| {
            job.status.is_ended() || (awaits_change && !status::is_known(job, &head.headers))
        };
        // Boxed, so that a request which does not wait has no room for the timer.
        *job = Box::pin(wait(registry, *job, limit, is_done)).await;
    }
    let mut response = match view {
        View::Result(at) if job.status.is_ended() => {
            let is_page = format == Format::Page;
            let mut result = Box::pin(result::result(registry, &job, at, is_page, head)).await?;
            if head.method == Method::GET {
                result::record_read(registry, job.id, &result);
            }
            let vary = message::vary(registry.settings.dialect);
            result.headers_mut().append(header::VARY, vary);
            result
        }
        View::Page => page::page(&job, Resource::Monitor, registry),
        View::Document => status::tagged(&job, registry),
        View::RedirectToResult(_) if job.status.is_ended() => status::see_result(&job, registry),
        View::RedirectToResult(at) | View::Result(at) => status::pending(&job, at, registry),
    };
    if is_conditional && !(matches!(view, View::Result(_)) && job.status.is_ended()) {
        // A result has been checked together with its range.
        response = precondition::check(head, response);
    }
    if let Some(applied) = prefer.applied(false) {
        let headers = response.headers_mut();
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(Reply {
        has_length: view == View::Document && !is_conditional,
        ..response.into()
    })
}

/// The representation that a GET for a job returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Page,
    Document,
    /// The document as 202, then a redirect to the result.
    RedirectToResult(Resource),
    /// The document as 202, then the result.
    Result(Resource),
}

impl View {
    fn new(resource: Resource, is_page: bool, settings: &Settings) -> Self {
        match (resource, settings.dialect) {
            (Resource::Monitor, _) if is_page => Self::Page,
            (Resource::Status, _) | (Resource::Monitor, Dialect::Default) => Self::Document,
            (Resource::Monitor, Dialect::SeeOther) => Self::RedirectToResult(resource),
            _ => Self::Result(resource),
        }
    }
}

/// Adds the length of a response's body.
///
/// A message with trailers is not framed by its length. The response to a HEAD has no body to
/// frame.
fn add_length(response: &mut Response<MonitorBody>, is_head: bool) {
    let body = response.body().as_result();
    let body = body.filter(|_| has_length(response.status()));
    let body = body.filter(|body| is_head || !body.has_trailers());
    if let Some(length) = body.and_then(ResultBody::len) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

/// Returns `true` if a browser says that a page of another site sends the request, and the
/// application does not allow the page's origin.
///
/// A POST needs no preflight. A browser sends `Sec-Fetch-Site` only over HTTPS and to this machine.
/// Without it, the page's `Origin` must be that of the request.
fn is_forged(head: &Parts, settings: &Settings) -> bool {
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter();
    let origin = head.headers.get(header::ORIGIN);
    let is_cross_site = match sites.next() {
        Some(site) => site == "cross-site" || sites.any(|site| site == "cross-site"),
        None => origin.is_some_and(|origin| !is_own_origin(origin, head)),
    };
    is_cross_site && !origin.is_some_and(|origin| settings.may_cancel_from(origin))
}

/// Returns `true` if an origin has the authority of the request. `null` has none.
fn is_own_origin(origin: &HeaderValue, head: &Parts) -> bool {
    let host = head.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.or_else(|| Some(head.uri.authority()?.as_str()));
    let origin = origin.to_str().ok();
    let Some((host, (scheme, authority))) = host.zip(origin.and_then(|it| it.split_once("://")))
    else {
        return false;
    };
    // A browser leaves out the default port of the scheme.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    authority.eq_ignore_ascii_case(host)
}

fn refuse(problem: Problem) -> Reply {
    problem.response().into()
}

fn options(route: Route) -> Response<ResultBody> {
    let mut response = status::empty(StatusCode::NO_CONTENT);
    let allow = HeaderValue::from_static(route.allow());
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
