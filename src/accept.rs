//! From a request to a job: the one place where a 202 is promised.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Request, Response, request::Parts};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Service};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    body::{Replay, RequestBody},
    call::Call,
    collect::Collected,
    future::Intake,
    gate::{Refused, Slot},
    idempotency::{Fingerprint, IDEMPOTENT_REPLAYED, Key},
    job::{JobId, Progress, Snapshot},
    jobs::Registry,
    links::Links,
    monitor,
    negotiate::Format,
    owner::Owner,
    prefer::Prefer,
    problem::{self, Problem},
    run::{self, Job},
    store::{Acceptance, Lookup, NewJob, Store},
    terms::Terms,
};

/// A request whose body has been read, with what it takes to make it a job.
pub(crate) struct Arrival<St: Store> {
    registry: Arc<Registry<St>>,
    terms: Arc<Terms>,
    /// The place for it; without one it can only join a job that is there.
    slot: Result<Slot, Refused>,
    record: St::Record,
    method: Method,
    /// The path, where links depend on it.
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    owner: Option<Owner>,
    key: Option<(Key, Fingerprint)>,
    at: Instant,
}

impl<St: Store> Arrival<St> {
    /// A request whose body has just been read.
    pub(crate) fn new(intake: Intake<St>, head: &Parts, body: &Collected) -> Self {
        let (registry, terms) = (intake.registry, intake.terms);
        let record = registry
            .store
            .record(head, &body.bytes, body.trailers.as_deref());
        let key = intake.key.map(|key| {
            let fingerprint = terms.idempotency.fingerprint(head, &body.bytes);
            (key, fingerprint)
        });
        let is_relative = registry.config.links == Links::Relative;
        Self {
            registry,
            terms,
            slot: intake.slot,
            record,
            method: head.method.clone(),
            path: is_relative.then(|| head.uri.path().into()),
            prefer: intake.prefer,
            format: Format::preferred(&head.headers),
            owner: intake.owner,
            key,
            at: Instant::now(),
        }
    }

    /// Whether the call must not be made without an entry for it.
    pub(crate) fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    fn job(&self, started: Option<Instant>, progress: Progress) -> NewJob {
        let now = SystemTime::now();
        NewJob {
            id: JobId::random(),
            created: self.at,
            created_at: now.checked_sub(self.at.elapsed()).unwrap_or(now),
            started,
            progress,
            owner: self.owner,
            key: self.key,
            join_only: false,
            run_here: started.is_some(),
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
    let new = arrival.job(call.started(), call.progress());
    match promise(arrival, new).await {
        Ok(mut promised) => {
            if let Some((job, span)) = promised.run.take() {
                spawn(call, job, span);
            }
            Ok(promised.accepted())
        }
        Err(refusal) => Err((refusal, call)),
    }
}

/// Makes a call with a key a job before it begins, or joins the job of an earlier request.
///
/// Where it could be answered inline `within` a time it is a job all the same, and its response is
/// kept: that is what the key asks for.
pub(crate) async fn accept_keyed<S, B, R, St>(
    arrival: Arrival<St>,
    call: Pin<Box<Call<S, B>>>,
    within: Option<Duration>,
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
    let strict = arrival.terms.idempotency.strict;
    let mut new = arrival.job(None, Progress::default());
    new.run_here = within.is_some();
    let mut promised = match promise(arrival, new).await {
        Ok(promised) => promised,
        Err(refusal) => return refusal,
    };
    let is_joined = promised.is_joined;
    if is_joined && strict && !promised.snapshot.status.is_ended() {
        return Problem::KeyInUse.response();
    }
    match (promised.run.take(), within) {
        (None, _) => {}
        (Some((job, span)), None) => spawn(call, job, span),
        (Some((job, span)), Some(_)) => {
            // Asked once before it goes to the background: what is ready at once is answered inline.
            let mut running = Box::pin(run::run(call, job)).instrument(span);
            let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx))).await;
            if first.is_pending() {
                tokio::spawn(running);
            }
        }
    }
    let mut response = match within {
        None => promised.accepted(),
        Some(limit) => promised.inline_or_accepted(limit).await,
    };
    if is_joined {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    }
    response
}

fn spawn<S, B, R, St>(call: Pin<Box<Call<S, B>>>, job: Job<St>, span: Span)
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    // Boxed, so that tokio moves a pointer into the task and not all that a job may come to.
    tokio::spawn(Box::pin(run::run(call, job)).instrument(span));
}

/// A job that is in the store, so that its 202 may go out.
struct Promised<St: Store> {
    registry: Arc<Registry<St>>,
    snapshot: Snapshot,
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    /// What is to run here.
    run: Option<(Job<St>, Span)>,
    /// Whether it is an earlier request's.
    is_joined: bool,
}

/// Makes the job, or finds that of an earlier request.
async fn promise<St: Store>(
    arrival: Arrival<St>,
    mut new: NewJob,
) -> Result<Promised<St>, Response<Replay>> {
    // The body may have taken its time: a drain that has begun since is not to wait for new work.
    let slot = match &arrival.slot {
        Ok(_) if arrival.registry.gate.is_closed() => Some(Refused::Draining),
        Ok(_) => None,
        Err(refused) => Some(*refused),
    };
    if let (Some(refused), None) = (slot, &arrival.key) {
        return Err(Problem::from(refused).response());
    }
    new.join_only = slot.is_some();
    let snapshot = new.snapshot();
    let accepted = arrival.registry.store.accept(new, arrival.record).await;
    let mut promised = Promised {
        registry: arrival.registry,
        snapshot,
        path: arrival.path,
        prefer: arrival.prefer,
        format: arrival.format,
        run: None,
        is_joined: false,
    };
    match accepted.map_err(|error| problem::store_failed(&error))? {
        Acceptance::Joined(snapshot) => {
            promised.snapshot = *snapshot;
            promised.is_joined = true;
        }
        Acceptance::Queued => {}
        Acceptance::KeyReused => return Err(Problem::KeyReused.response()),
        Acceptance::Full => {
            return Err(Problem::from(slot.unwrap_or(Refused::Full)).response());
        }
        Acceptance::RunHere(claim) => {
            let id = promised.snapshot.id;
            let job = Job {
                id,
                registry: promised.registry.clone(),
                created: arrival.at,
                is_head: arrival.method == Method::HEAD,
                is_owned: arrival.owner.is_some(),
                claim,
                _slot: arrival.slot.ok(),
            };
            promised.run = Some((job, span(id, &arrival.method)));
        }
    }
    Ok(promised)
}

/// The job's span: it follows from the request's, and outlives it.
pub(crate) fn span(id: JobId, method: &Method) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, end = Empty);
    span.follows_from(Span::current());
    span
}

impl<St: Store> Promised<St> {
    fn accepted(&self) -> Response<Replay> {
        let config = &self.registry.config;
        let applied = self.prefer.applied(true, config.max_wait);
        let path = self.path.as_deref().unwrap_or_default();
        match self.format {
            Format::Page => monitor::see_page(&self.snapshot, config, path, applied),
            Format::Json | Format::Events => {
                monitor::accepted(&self.snapshot, config, path, applied)
            }
        }
    }

    /// The job's response, if it ends within so long.
    async fn inline_or_accepted(mut self, limit: Duration) -> Response<Replay> {
        let store = &self.registry.store;
        // As it is now: it has been run since it was made.
        self.snapshot = match store.get(self.snapshot.id).await {
            Ok(Lookup::Found(snapshot)) => snapshot,
            Ok(Lookup::Gone(_) | Lookup::Unknown) => return Problem::Gone.response(),
            Err(error) => return problem::store_failed(&error),
        };
        let ended = |job: &Snapshot| job.status.is_ended();
        self.snapshot = monitor::wait(store, self.snapshot, limit, ended).await;
        if !self.snapshot.status.is_ended() {
            return self.accepted();
        }
        let outcome = monitor::outcome(&self.registry, &self.snapshot).await;
        let mut response = outcome.unwrap_or_else(|error| problem::store_failed(&error));
        self.prefer
            .mark_inline(&mut response, self.registry.config.max_wait);
        response
    }
}
