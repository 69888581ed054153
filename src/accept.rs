//! From a request to a job: the one place where a 202 is promised.

use std::{pin::Pin, sync::Arc, time::SystemTime};

use http::{Method, Request, Response, request::Parts};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Service};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    body::{Replay, RequestBody},
    call::Call,
    gate::Slot,
    job::{JobId, Progress},
    jobs::Registry,
    monitor,
    prefer::Prefer,
    problem::{self, Problem},
    run::{self, Job},
    store::{Acceptance, NewJob, Store},
};

/// What is left to know of a request once it has become a call.
pub(crate) struct Arrival {
    method: Method,
    /// Whether the client asked for `respond-async`.
    prefers_async: bool,
    at: Instant,
    at_wall_clock: SystemTime,
}

impl Arrival {
    /// A request whose body has just been read.
    pub(crate) fn new(head: &Parts) -> Self {
        Self {
            method: head.method.clone(),
            prefers_async: Prefer::of(&head.headers).respond_async,
            at: Instant::now(),
            at_wall_clock: SystemTime::now(),
        }
    }

    fn job(&self, started: Option<Instant>, progress: Progress) -> NewJob {
        NewJob {
            id: JobId::random(),
            created: self.at,
            created_at: self.at_wall_clock,
            started,
            progress,
        }
    }

    /// The job's span: it follows from the request's, and outlives it.
    fn span(&self, id: JobId) -> Span {
        let span = info_span!(parent: None, "job", %id, method = %self.method, end = Empty);
        span.follows_from(Span::current());
        span
    }
}

/// Makes a call that has not begun a job, runs it in the background, and answers 202.
pub(crate) async fn at_once<S, B, R, St>(
    registry: Arc<Registry<St>>,
    slot: Slot,
    arrival: Arrival,
    record: St::Record,
    call: Call<S, B>,
) -> Response<Replay>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    let new = arrival.job(None, Progress::default());
    match promise(registry, slot, arrival, record, new).await {
        Ok((job, span, response)) => {
            tokio::spawn(run::run(call, job).instrument(span));
            response
        }
        Err(refusal) => refusal,
    }
}

/// Makes a call that runs a job, and answers 202; or gives it back, to go on inline.
pub(crate) async fn hand_over<S, B, R, St>(
    registry: Arc<Registry<St>>,
    slot: Slot,
    arrival: Arrival,
    record: St::Record,
    call: Pin<Box<Call<S, B>>>,
) -> Result<Response<Replay>, Pin<Box<Call<S, B>>>>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    let new = arrival.job(call.started(), call.progress());
    match promise(registry, slot, arrival, record, new).await {
        Ok((job, span, response)) => {
            tokio::spawn(run::run_on(call, job).instrument(span));
            Ok(response)
        }
        Err(_) => Err(call),
    }
}

/// Makes the job; after this it is in the store, and the 202 may go out.
async fn promise<St: Store>(
    registry: Arc<Registry<St>>,
    slot: Slot,
    arrival: Arrival,
    record: St::Record,
    new: NewJob,
) -> Result<(Job<St>, Span, Response<Replay>), Response<Replay>> {
    // The body may have taken its time: a drain that has begun since is not to wait for new work.
    if registry.gate.is_closed() {
        return Err(Problem::Draining.response());
    }
    let snapshot = new.snapshot();
    let claim = match registry.store.accept(new, record).await {
        Ok(Acceptance::RunHere(claim)) => claim,
        Ok(Acceptance::Full) => return Err(Problem::Full.response()),
        Err(error) => return Err(problem::store_failed(&error)),
    };
    let response = monitor::accepted(&registry.config, &snapshot, arrival.prefers_async);
    let span = arrival.span(snapshot.id);
    let job = Job {
        id: snapshot.id,
        registry,
        created: arrival.at,
        is_head: arrival.method == Method::HEAD,
        claim,
        _slot: slot,
    };
    Ok((job, span, response))
}
