//! From a request to a job: the one place where a 202 is promised.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
    gate::{Refused, Slot},
    idempotency::IDEMPOTENT_REPLAYED,
    intake::{Bound, Intake},
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
    slot: Option<Slot>,
    /// Why there is none.
    refused: Option<Refused>,
    /// Until the store has it.
    record: Option<St::Record>,
    method: Method,
    /// The path, where links depend on it.
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    bound: Option<Box<Bound>>,
    /// What kind of request it is, where the layer was told how to tell.
    kind: Option<Kind>,
    at: Instant,
}

impl<St: Store> Arrival<St> {
    /// A request whose body has just been read.
    pub(crate) fn new(intake: Intake<St>, head: &Parts, body: &Collected) -> Self {
        let (registry, terms) = (intake.registry, intake.terms);
        let (slot, refused) = match intake.slot {
            Ok(slot) => (Some(slot), None),
            Err(refused) => (None, Some(refused)),
        };
        let record = registry
            .store
            .record(head, &body.bytes, body.trailers.as_deref());
        let mut bound = intake.bound;
        if let Some(bound) = bound.as_mut().filter(|bound| bound.key.is_some()) {
            bound.fingerprint = Some(terms.idempotency.fingerprint(head, &body.bytes));
        }
        let kind = terms.kind.as_ref().and_then(|kind| kind(head));
        let kind = kind.map(|kind| registry.estimates.kind(&kind));
        let is_relative = registry.config.links == Links::Relative;
        Self {
            registry,
            terms,
            slot,
            refused,
            record: Some(record),
            method: head.method.clone(),
            path: is_relative.then(|| head.uri.path().into()),
            prefer: intake.prefer,
            format: intake.format,
            bound,
            kind,
            at: Instant::now(),
        }
    }

    /// Whether the call must not be made without an entry for it.
    pub(crate) fn is_keyed(&self) -> bool {
        let bound = self.bound.as_ref();
        bound.is_some_and(|bound| bound.key.is_some())
    }

    /// When the request's body had been read.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// The job it is to become now, if it may.
    fn job<S, B>(&self, call: &Call<S, B>, now: Instant) -> Result<NewJob, Refused>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        // The body may have taken its time: a drain that has begun since is not to wait for new work.
        let is_closed = self.registry.gate.is_closed();
        let refused = self.refused.or(is_closed.then_some(Refused::Draining));
        let join_only = match refused {
            None => false,
            Some(_) if self.is_keyed() => true,
            Some(refused) => return Err(refused),
        };
        let bound = self.bound.as_ref();
        let key = bound.and_then(|bound| bound.key.zip(bound.fingerprint));
        let shown = SystemTime::now();
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
            key,
            kind,
            estimated_finish: whole.and_then(|whole| created_at.checked_add(whole)),
            join_only,
            run_here: started.is_some(),
        })
    }

    /// What the store has made of the request, where it did not refuse it.
    fn settled(
        &mut self,
        new: &NewJob,
        accepted: Result<Acceptance<St::Claim>, St::Error>,
    ) -> Result<Settled<St::Claim>, Response<Replay>> {
        let (snapshot, claim, is_joined) = match accepted {
            Ok(Acceptance::RunHere(claim)) => (new.snapshot(), Some(claim), false),
            Ok(Acceptance::Queued) => (new.snapshot(), None, false),
            Ok(Acceptance::Joined(snapshot)) => (*snapshot, None, true),
            Ok(Acceptance::KeyReused) => return Err(Problem::KeyReused.counted().response()),
            Ok(Acceptance::Full) => {
                let draining = new.join_only.then_some(Refused::Draining);
                let refused = self.refused.or(draining).unwrap_or(Refused::Full);
                return Err(Problem::from(refused).counted().response());
            }
            Err(error) => {
                measure::refused("store-unavailable");
                return Err(problem::store_failed(&error));
            }
        };
        if !is_joined {
            measure::accepted();
        }
        if claim.is_none() {
            // Not run here, so no place is taken here.
            self.slot = None;
        }
        Ok(Settled {
            snapshot,
            claim,
            is_joined,
        })
    }

    /// The job that is to run here.
    fn run(&mut self, new: NewJob, claim: St::Claim) -> (Job<St>, Span) {
        let span = span(new.id, &self.method);
        let job = Job {
            id: new.id,
            registry: self.registry.clone(),
            created: self.at,
            created_at: new.created_at,
            is_head: self.method == Method::HEAD,
            is_owned: new.owner.is_some(),
            kind: new.kind,
            claim,
            _slot: self.slot.take(),
        };
        (job, span)
    }

    fn accepted(&self, job: &Snapshot, now: Instant) -> Response<Replay> {
        let applied = self.prefer.applied(true);
        let path = self.path.as_deref().unwrap_or_default();
        match self.format {
            Format::Page => monitor::see_page(job, &self.registry, path, applied),
            Format::Json | Format::Events => {
                monitor::accepted(job, &self.registry, path, now, applied)
            }
        }
    }

    /// The job's response, if it ends within so long.
    async fn inline_or_accepted(&self, id: JobId, limit: Duration) -> Response<Replay> {
        let store = &self.registry.store;
        // As it is now: it has been run since it was made.
        let job = match store.get(id).await {
            Ok(Lookup::Found(job)) => *job,
            Ok(Lookup::Gone(_) | Lookup::Unknown) => return Problem::Gone.response(),
            Err(error) => return problem::store_failed(&error),
        };
        let ended = |job: &Snapshot| job.status.is_ended();
        let job = monitor::wait(store, job, limit, ended).await;
        if !job.status.is_ended() {
            return self.accepted(&job, Instant::now());
        }
        let outcome = monitor::outcome(&self.registry, &job).await;
        let mut response = outcome.unwrap_or_else(|error| problem::store_failed(&error));
        self.prefer.mark_inline(&mut response);
        response
    }
}

/// A request whose job is in the store, so that its 202 may go out.
struct Settled<C> {
    snapshot: Snapshot,
    /// The right to end it, where it is to run here.
    claim: Option<C>,
    /// Whether the job is an earlier request's.
    is_joined: bool,
}

/// The 202, or a refusal and the call.
pub(crate) type Accepting<S, B> =
    Result<Response<Replay>, (Response<Replay>, Pin<Box<Call<S, B>>>)>;

/// What there is of an accept that waits for its store.
pub(crate) type Waiting<S, B> = Pin<Box<dyn Future<Output = Accepting<S, B>> + Send>>;

/// Makes a call a job as of `now`, runs it in the background, and answers 202; or gives the call back, with
/// what there is to say against it. `Err` where the store takes its time.
pub(crate) fn accept<S, B, R, St>(
    mut arrival: Arrival<St>,
    call: Pin<Box<Call<S, B>>>,
    now: Instant,
    cx: &mut Context<'_>,
) -> Result<Accepting<S, B>, Waiting<S, B>>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    let new = match arrival.job(&call, now) {
        Ok(new) => new,
        Err(refused) => {
            let refusal = Problem::from(refused).counted().response();
            return Ok(Err((refusal, call)));
        }
    };
    let record = arrival.record.take().expect("a request is recorded once");
    let mut accepting = arrival.registry.store.accept(&new, record);
    match Pin::new(&mut accepting).poll(cx) {
        Poll::Ready(accepted) => Ok(arrival.conclude(new, accepted, call, now)),
        Poll::Pending => Err(Box::pin(async move {
            let accepted = accepting.await;
            arrival.conclude(new, accepted, call, Instant::now())
        })),
    }
}

impl<St: Store> Arrival<St> {
    /// Answers for a job as the store has taken it, and starts it where it is to run here.
    fn conclude<S, B, R>(
        mut self,
        new: NewJob,
        accepted: Result<Acceptance<St::Claim>, St::Error>,
        call: Pin<Box<Call<S, B>>>,
        now: Instant,
    ) -> Accepting<S, B>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Send + 'static,
        R: Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let settled = match self.settled(&new, accepted) {
            Ok(settled) => settled,
            Err(refusal) => return Err((refusal, call)),
        };
        let response = self.accepted(&settled.snapshot, now);
        if let Some(claim) = settled.claim {
            let (job, span) = self.run(new, claim);
            spawn(call, job, span);
        }
        Ok(response)
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
    let new = match arrival.job(&call, arrival.at) {
        Ok(new) => NewJob {
            run_here: within.is_some(),
            ..new
        },
        Err(refused) => return Problem::from(refused).counted().response(),
    };
    let record = arrival.record.take().expect("a request is recorded once");
    let accepted = arrival.registry.store.accept(&new, record).await;
    let Settled {
        snapshot,
        claim,
        is_joined,
    } = match arrival.settled(&new, accepted) {
        Ok(settled) => settled,
        Err(refusal) => return refusal,
    };
    if is_joined {
        if strict && !snapshot.status.is_ended() {
            return Problem::KeyInUse.counted().response();
        }
        measure::joined();
    }
    if let Some(claim) = claim {
        let (job, span) = arrival.run(new, claim);
        match within {
            None => spawn(call, job, span),
            Some(_) => {
                // Asked once before it goes to the background: what is ready at once is answered inline.
                let mut running = Box::pin(Run { call, job }.until_ended()).instrument(span);
                let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx))).await;
                if first.is_pending() {
                    tokio::spawn(running);
                }
            }
        }
    }
    let mut response = match within {
        None => arrival.accepted(&snapshot, Instant::now()),
        Some(limit) => arrival.inline_or_accepted(snapshot.id, limit).await,
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

/// The job's span: it follows from the request's, and outlives it.
pub(crate) fn span(id: JobId, method: &Method) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, end = Empty);
    if !span.is_disabled() {
        span.follows_from(Span::current());
    }
    span
}
