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
    estimate::Kind,
    future::{Bound, Intake},
    gate::{Refused, Slot},
    idempotency::{Fingerprint, IDEMPOTENT_REPLAYED},
    job::{JobId, Snapshot},
    jobs::Registry,
    links::Links,
    measure, monitor,
    negotiate::Format,
    prefer::Prefer,
    problem::{self, Problem},
    run::{Job, Run},
    store::{Acceptance, Lookup, NewJob, Store},
    terms::Terms,
};

/// A request whose body has been read, with what it takes to make it a job.
pub(crate) struct Arrival<St: Store> {
    registry: Arc<Registry<St>>,
    terms: Arc<Terms>,
    /// The place for it; without one it can only join a job that is there.
    slot: Result<Slot, Refused>,
    /// Until the store has it.
    record: Option<St::Record>,
    method: Method,
    /// The path, where links depend on it.
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    bound: Option<Box<Bound>>,
    /// What the request's key is used for, where it has one.
    fingerprint: Option<Box<Fingerprint>>,
    /// What kind of request it is, where the layer was told how to tell.
    kind: Option<Kind>,
    at: Instant,
}

impl<St: Store> Arrival<St> {
    /// A request whose body has just been read.
    pub(crate) fn new(intake: Intake<St>, head: &Parts, body: &Collected) -> Self {
        let (registry, terms) = (intake.registry, intake.terms);
        let record = registry
            .store
            .record(head, &body.bytes, body.trailers.as_deref());
        let is_keyed = intake
            .bound
            .as_ref()
            .is_some_and(|bound| bound.key.is_some());
        let fingerprint = is_keyed.then(|| terms.idempotency.fingerprint(head, &body.bytes));
        let kind = terms.kind.as_ref().and_then(|kind| kind(head));
        let kind = kind.map(|kind| registry.estimates.kind(&kind));
        let is_relative = registry.config.links == Links::Relative;
        Self {
            registry,
            terms,
            slot: intake.slot,
            record: Some(record),
            method: head.method.clone(),
            path: is_relative.then(|| head.uri.path().into()),
            prefer: intake.prefer,
            format: intake.format,
            bound: intake.bound,
            fingerprint: fingerprint.map(Box::new),
            kind,
            at: Instant::now(),
        }
    }

    /// Whether the call must not be made without an entry for it.
    pub(crate) fn is_keyed(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// The job it is to become, if it may.
    fn job<S, B>(&self, call: &Call<S, B>) -> Result<NewJob, Refused>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        // The body may have taken its time: a drain that has begun since is not to wait for new work.
        let join_only = match self.slot {
            Ok(_) if !self.registry.gate.is_closed() => false,
            _ if self.is_keyed() => true,
            Ok(_) => return Err(Refused::Draining),
            Err(refused) => return Err(refused),
        };
        let bound = self.bound.as_ref();
        let key = bound.and_then(|bound| bound.key);
        let (now, shown) = (Instant::now(), SystemTime::now());
        let age = now.saturating_duration_since(self.at);
        let created_at = shown.checked_sub(age).unwrap_or(shown);
        let (started, progress) = (call.started(), call.progress());
        let estimates = &self.registry.estimates;
        let kind = match &self.kind {
            Some(kind) => kind.clone(),
            None => estimates.kind_of(&self.method, call.path()),
        };
        let whole = estimates.whole(&kind, now, self.at, started, progress.fraction);
        Ok(NewJob {
            id: JobId::random(),
            created: self.at,
            created_at,
            started,
            progress,
            owner: bound.and_then(|bound| bound.owner),
            key: key.zip(self.fingerprint.as_deref().copied()),
            kind,
            estimated_finish: whole.and_then(|whole| created_at.checked_add(whole)),
            join_only,
            run_here: started.is_some(),
        })
    }
}

/// The 202, or a refusal and the call.
pub(crate) type Accepting<S, B> =
    Result<Response<Replay>, (Response<Replay>, Pin<Box<Call<S, B>>>)>;

/// Makes a call a job, runs it in the background, and answers 202; or gives the call back, with what
/// there is to say against it.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` has room for its arguments twice"
)]
pub(crate) fn accept<S, B, R, St>(
    mut arrival: Arrival<St>,
    call: Pin<Box<Call<S, B>>>,
) -> impl Future<Output = Accepting<S, B>>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    async move {
        let new = match arrival.job(&call) {
            Ok(new) => new,
            Err(refused) => return Err((Problem::from(refused).counted().response(), call)),
        };
        let record = arrival.record.take().expect("a request is recorded once");
        let accepted = arrival.registry.store.accept(&new, record).await;
        match promise(arrival, &new, accepted) {
            Ok((promised, run)) => {
                if let Some((job, span)) = run {
                    spawn(call, job, span);
                }
                Ok(promised.accepted())
            }
            Err(refusal) => Err((refusal, call)),
        }
    }
}

/// Makes a call with a key a job before it begins, or joins the job of an earlier request.
///
/// Where it could be answered inline `within` a time it is a job all the same, and its response is
/// kept: that is what the key asks for.
pub(crate) async fn accept_keyed<S, B, R, St>(
    mut arrival: Arrival<St>,
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
    let new = match arrival.job(&call) {
        Ok(new) => NewJob {
            run_here: within.is_some(),
            ..new
        },
        Err(refused) => return Problem::from(refused).counted().response(),
    };
    let record = arrival.record.take().expect("a request is recorded once");
    let accepted = arrival.registry.store.accept(&new, record).await;
    let (promised, run) = match promise(arrival, &new, accepted) {
        Ok(promised) => promised,
        Err(refusal) => return refusal,
    };
    let is_joined = promised.is_joined;
    if is_joined && strict && !promised.snapshot.status.is_ended() {
        return Problem::KeyInUse.counted().response();
    }
    match (run, within) {
        (None, _) => {}
        (Some((job, span)), None) => spawn(call, job, span),
        (Some((job, span)), Some(_)) => {
            // Asked once before it goes to the background: what is ready at once is answered inline.
            let mut running = Box::pin(Run { call, job }.until_ended()).instrument(span);
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
    let run = Run { call, job };
    // Boxed within the task, so that tokio does not move all that a job may come to, nor the 202 waits for
    // the room.
    let run = async move { Box::pin(run.until_ended()).await };
    tokio::spawn(run.instrument(span));
}

/// A job that is in the store, so that its 202 may go out.
struct Promised<St> {
    registry: Arc<Registry<St>>,
    snapshot: Snapshot,
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    /// Whether the job is an earlier request's.
    is_joined: bool,
}

/// A promise, and what is to run here for it.
type Promise<St> = (Promised<St>, Option<(Job<St>, Span)>);

/// What comes of a request that the store has answered.
fn promise<St: Store>(
    arrival: Arrival<St>,
    new: &NewJob,
    accepted: Result<Acceptance<St::Claim>, St::Error>,
) -> Result<Promise<St>, Response<Replay>> {
    let mut is_joined = false;
    let (snapshot, run) = match accepted.map_err(|error| {
        Problem::StoreUnavailable.counted();
        problem::store_failed(&error)
    })? {
        Acceptance::Joined(snapshot) => {
            measure::joined();
            is_joined = true;
            (*snapshot, None)
        }
        Acceptance::Queued => (new.snapshot(), None),
        Acceptance::KeyReused => return Err(Problem::KeyReused.counted().response()),
        Acceptance::Full => {
            let refused = match arrival.slot {
                Ok(_) if new.join_only => Refused::Draining,
                Ok(_) => Refused::Full,
                Err(refused) => refused,
            };
            return Err(Problem::from(refused).counted().response());
        }
        Acceptance::RunHere(claim) => {
            measure::accepted();
            let job = Job {
                id: new.id,
                registry: arrival.registry.clone(),
                created: arrival.at,
                created_at: new.created_at,
                is_head: arrival.method == Method::HEAD,
                is_owned: new.owner.is_some(),
                kind: new.kind.clone(),
                claim,
                _slot: arrival.slot.ok(),
            };
            let span = span(new.id, &arrival.method);
            (new.snapshot(), Some((job, span)))
        }
    };
    let promised = Promised {
        registry: arrival.registry,
        snapshot,
        path: arrival.path,
        prefer: arrival.prefer,
        format: arrival.format,
        is_joined,
    };
    Ok((promised, run))
}

/// The job's span: it follows from the request's, and outlives it.
pub(crate) fn span(id: JobId, method: &Method) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, end = Empty);
    if !span.is_disabled() {
        span.follows_from(Span::current());
    }
    span
}

impl<St: Store> Promised<St> {
    fn accepted(&self) -> Response<Replay> {
        let registry = &self.registry;
        let applied = self.prefer.applied(true);
        let path = self.path.as_deref().unwrap_or_default();
        match self.format {
            Format::Page => monitor::see_page(&self.snapshot, registry, path, applied),
            Format::Json | Format::Events => {
                monitor::accepted(&self.snapshot, registry, path, applied)
            }
        }
    }

    /// The job's response, if it ends within so long.
    async fn inline_or_accepted(mut self, limit: Duration) -> Response<Replay> {
        let store = &self.registry.store;
        // As it is now: it has been run since it was made.
        self.snapshot = match store.get(self.snapshot.id).await {
            Ok(Lookup::Found(snapshot)) => *snapshot,
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
        self.prefer.mark_inline(&mut response);
        response
    }
}
