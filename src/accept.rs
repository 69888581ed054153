//! From a request to a job: the one place where a 202 is promised.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

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
    problem::{self, Problem},
    run::{self, Job},
    store::{Acceptance, NewJob, Store},
};

/// A request whose body has been read, with what it takes to make it a job.
pub(crate) struct Arrival<St: Store> {
    registry: Arc<Registry<St>>,
    slot: Slot,
    record: St::Record,
    method: Method,
    /// Whether the client asked for `respond-async`.
    prefers_async: bool,
    at: Instant,
}

impl<St: Store> Arrival<St> {
    /// A request whose body has just been read.
    pub(crate) fn new(
        registry: Arc<Registry<St>>,
        slot: Slot,
        head: &Parts,
        prefers_async: bool,
        record: St::Record,
    ) -> Self {
        Self {
            registry,
            slot,
            record,
            method: head.method.clone(),
            prefers_async,
            at: Instant::now(),
        }
    }

    fn job(&self, age: Duration, started: Option<Instant>, progress: Progress) -> NewJob {
        let now = SystemTime::now();
        NewJob {
            id: JobId::random(),
            created: self.at,
            created_at: now.checked_sub(age).unwrap_or(now),
            started,
            progress,
        }
    }
}

/// The 202, or a refusal and the call.
pub(crate) type Accepting<S, B> =
    Result<Response<Replay>, (Response<Replay>, Pin<Box<Call<S, B>>>)>;

/// Makes a call a job, runs it in the background, and answers 202; or gives the call back, with what
/// there is to say against it.
pub(crate) async fn accept<S, B, R, St>(
    arrival: Arrival<St>,
    call: Pin<Box<Call<S, B>>>,
) -> Accepting<S, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    match promise(arrival, call.started(), call.progress()).await {
        Ok((job, span, response)) => {
            // Boxed, so that tokio moves a pointer into the task and not all that a job may come to.
            tokio::spawn(Box::pin(run::run(call, job)).instrument(span));
            Ok(response)
        }
        Err(refusal) => Err((refusal, call)),
    }
}

/// Makes the job; after this it is in the store, and the 202 may go out.
async fn promise<St: Store>(
    arrival: Arrival<St>,
    started: Option<Instant>,
    progress: Progress,
) -> Result<(Job<St>, Span, Response<Replay>), Response<Replay>> {
    let registry = &arrival.registry;
    // The body may have taken its time: a drain that has begun since is not to wait for new work.
    if registry.gate.is_closed() {
        return Err(Problem::Draining.response());
    }
    let age = arrival.at.elapsed();
    let (accepting, snapshot) = {
        let new = arrival.job(age, started, progress);
        let snapshot = new.snapshot();
        (registry.store.accept(new, arrival.record), snapshot)
    };
    let claim = match accepting.await {
        Ok(Acceptance::RunHere(claim)) => claim,
        Ok(Acceptance::Full) => return Err(Problem::Full.response()),
        Err(error) => return Err(problem::store_failed(&error)),
    };
    let response = monitor::accepted(&registry.config, &snapshot, age, arrival.prefers_async);
    let span = span(snapshot.id, &arrival.method);
    let job = Job {
        id: snapshot.id,
        registry: arrival.registry,
        created: arrival.at,
        is_head: arrival.method == Method::HEAD,
        claim,
        _slot: arrival.slot,
    };
    Ok((job, span, response))
}

/// The job's span: it follows from the request's, and outlives it.
fn span(id: JobId, method: &Method) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, end = Empty);
    span.follows_from(Span::current());
    span
}
