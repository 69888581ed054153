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

use super::{
    body::{Replay, RequestBody},
    options::Terms,
};
use crate::{
    config::{Fingerprint, IDEMPOTENT_REPLAYED, Key, Links, Plan},
    estimate::{Elapsed, Kind},
    job::{JobId, Owner, Snapshot},
    jobs::Registry,
    limit::{Collected, Refused, Slot},
    problem::Problem,
    protocol::{Format, Prefer},
    run::{Call, Job, Run},
    store::{Acceptance, Lookup, NewJob, Store},
    {monitor, problem, telemetry},
};

/// A request that may become a job, and what was found out from its head.
pub(crate) struct Arrival<St: Store> {
    pub(crate) registry: Arc<Registry<St>>,
    pub(crate) terms: Arc<Terms>,
    /// The place for it; without one it can only join a job that is there.
    pub(crate) slot: Option<Slot>,
    /// Why there is none.
    pub(crate) refused: Option<Refused>,
    pub(crate) plan: Plan,
    /// Whether the answer must be a 202, or whatever stands in its way: else the call stays inline.
    pub(crate) is_owed: bool,
    pub(crate) prefer: Prefer,
    pub(crate) format: Format,
    pub(crate) bound: Option<Box<Bound>>,
    pub(crate) method: Method,
    /// What is known once the body has been read.
    pub(crate) read: Option<Read<St>>,
}

/// To whom and to which key a request is bound; few are.
pub(crate) struct Bound {
    pub(crate) owner: Option<Owner>,
    pub(crate) key: Option<Key>,
    /// What the key is used for, once the body has been read.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// What is known of a request whose body has been read.
pub(crate) struct Read<St: Store> {
    at: Instant,
    /// Until the store has it.
    record: Option<St::Record>,
    /// The path, where links depend on it.
    path: Option<Box<str>>,
    /// What kind of request it is, where the layer was told how to tell.
    kind: Option<Kind>,
}

impl<St: Store> Arrival<St> {
    /// Takes note of a body that has just been read. Returns when that was.
    pub(crate) fn body_read(&mut self, head: &Parts, body: &Collected) -> Instant {
        let (registry, terms) = (&self.registry, &self.terms);
        let record = registry
            .store
            .record(head, &body.bytes, body.trailers.as_deref());
        if let Some(bound) = self.bound.as_mut().filter(|bound| bound.key.is_some()) {
            bound.fingerprint = Some(terms.idempotency.fingerprint(head, &body.bytes));
        }
        let kind = terms.kind.as_ref().and_then(|kind| kind(head));
        let kind = kind.map(|kind| registry.estimates.kind(&kind));
        let is_relative = registry.config.links == Links::Relative;
        let at = Instant::now();
        self.read = Some(Read {
            at,
            record: Some(record),
            path: is_relative.then(|| head.uri.path().into()),
            kind,
        });
        at
    }

    /// Whether the call must not be made without an entry for it.
    pub(crate) fn is_keyed(&self) -> bool {
        let bound = self.bound.as_ref();
        bound.is_some_and(|bound| bound.key.is_some())
    }

    /// The job it is to become now, if it may.
    fn job<S, B>(&self, read: &Read<St>, call: &Call<S, B>, now: Instant) -> Result<NewJob, Refused>
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
        let age = now.saturating_duration_since(read.at);
        let created_at = shown.checked_sub(age).unwrap_or(shown);
        let (started, progress) = (call.started(), call.progress());
        let estimates = &self.registry.estimates;
        let kind = match &read.kind {
            Some(kind) => kind.clone(),
            None => estimates.default_kind(&self.method, call.path()),
        };
        let elapsed = Elapsed::at(now, read.at, started, progress.fraction);
        let total = estimates.expected_total(&kind, elapsed);
        Ok(NewJob {
            id: JobId::random(),
            created: read.at,
            created_at,
            started,
            progress,
            owner: bound.and_then(|bound| bound.owner),
            key,
            kind,
            estimated_finish: total.and_then(|total| created_at.checked_add(total)),
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
        let settled = match accepted {
            Ok(Acceptance::RunHere(claim)) => Settled::New(Some(claim)),
            Ok(Acceptance::Queued) => Settled::New(None),
            Ok(Acceptance::Joined(job)) => Settled::Joined(job),
            Ok(Acceptance::KeyReused) => return Err(Problem::KeyReused.counted().response()),
            Ok(Acceptance::TooLarge) => {
                return Err(Problem::FieldsTooLarge.counted().response());
            }
            Ok(Acceptance::Full) => {
                let draining = new.join_only.then_some(Refused::Draining);
                let refused = self.refused.or(draining).unwrap_or(Refused::Full);
                return Err(Problem::from(refused).counted().response());
            }
            Err(error) => {
                telemetry::refused("store-unavailable");
                return Err(problem::store_failed(&error));
            }
        };
        if let Settled::New(_) = settled {
            telemetry::accepted();
        }
        if !matches!(settled, Settled::New(Some(_))) {
            // Not run here, so no place is taken here.
            self.slot = None;
        }
        Ok(settled)
    }

    /// Makes a call the job that is to run here.
    fn start<S, B, R>(
        &mut self,
        call: Call<S, B>,
        new: &NewJob,
        claim: St::Claim,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Send + 'static,
        R: Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let span = span(new.id, &self.method);
        let job = Job {
            registry: self.registry.clone(),
            created: new.created,
            waited: 0,
            created_at: new.created_at,
            is_head: self.method == Method::HEAD,
            is_owned: new.owner.is_some(),
            kind: new.kind.clone(),
            claim,
            _slot: self.slot.take(),
        };
        let run = Run::new(call, new.id, job);
        // Boxed, so that the runtime's own record of it is of the smallest size.
        match span.is_disabled() {
            true => Box::pin(run),
            false => Box::pin(run.instrument(span)),
        }
    }

    fn accepted(&self, read: &Read<St>, job: &Snapshot, now: Instant) -> Response<Replay> {
        let applied = self.prefer.applied(true);
        let path = read.path.as_deref().unwrap_or_default();
        match self.format {
            Format::Page => monitor::see_page(job, &self.registry, path, now, applied),
            Format::Json | Format::Events => {
                monitor::accepted(job, &self.registry, path, now, applied)
            }
        }
    }

    /// The job's response, if it ends within so long.
    async fn inline_or_accepted(
        &self,
        read: &Read<St>,
        id: JobId,
        limit: Duration,
    ) -> Response<Replay> {
        let store = &self.registry.store;
        // As it is now: it has been run since it was made.
        let job = match store.get(id).await {
            Ok(Lookup::Found(job)) => *job,
            Ok(Lookup::Gone(_) | Lookup::Unknown) => return Problem::Gone.response(),
            Err(error) => return problem::store_failed(&error),
        };
        let ended = |job: &Snapshot| job.status.is_ended();
        let job = monitor::wait(&self.registry, job, limit, ended).await;
        if !job.status.is_ended() {
            return self.accepted(read, &job, Instant::now());
        }
        let outcome = monitor::outcome(&self.registry, &job).await;
        let mut response = outcome.unwrap_or_else(|error| problem::store_failed(&error));
        self.prefer.mark_inline(&mut response);
        response
    }
}

/// A request whose job is in the store, so that its 202 may go out.
enum Settled<C> {
    /// With the right to end it, where it is to run here.
    New(Option<C>),
    /// It is an earlier request's.
    Joined(Box<Snapshot>),
}

/// The 202, or a refusal and the call.
pub(crate) type Accepting<S, B> = Result<Response<Replay>, (Response<Replay>, Call<S, B>)>;

/// What there is of an accept that waits for its store.
pub(crate) type Waiting<S, B> = Pin<Box<dyn Future<Output = Accepting<S, B>> + Send>>;

/// Makes a call a job as of `now`, runs it in the background, and answers 202; or gives the call back, with
/// what there is to say against it. `Err` where the store takes its time: it has the arrival then.
pub(crate) fn accept<S, B, R, St>(
    arriving: &mut Option<Arrival<St>>,
    call: Call<S, B>,
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
    let arrival = arriving.as_mut().expect("a request arrives once");
    let mut read = arrival.read.take().expect("its body has been read");
    let new = match arrival.job(&read, &call, now) {
        Ok(new) => new,
        Err(refused) => {
            let refusal = Problem::from(refused).counted().response();
            return Ok(Err((refusal, call)));
        }
    };
    let record = read.record.take().expect("a request is recorded once");
    let mut accepting = arrival.registry.store.accept(&new, record);
    if let Poll::Ready(accepted) = Pin::new(&mut accepting).poll(cx) {
        return Ok(arrival.conclude(&read, &new, accepted, call, now));
    }
    let arrival = arriving.take().expect("it is there");
    Err(Box::pin(async move {
        // Dropped midway, the call goes before the slot.
        let mut arrival = arrival;
        let call = call;
        let accepted = accepting.await;
        arrival.conclude(&read, &new, accepted, call, Instant::now())
    }))
}

impl<St: Store> Arrival<St> {
    /// Answers for a job as the store has taken it, and starts it where it is to run here.
    fn conclude<S, B, R>(
        &mut self,
        read: &Read<St>,
        new: &NewJob,
        accepted: Result<Acceptance<St::Claim>, St::Error>,
        call: Call<S, B>,
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
        match self.settled(new, accepted) {
            Err(refusal) => Err((refusal, call)),
            Ok(Settled::Joined(job)) => Ok(self.accepted(read, &job, now)),
            Ok(Settled::New(claim)) => {
                let response = self.accepted(read, &new.snapshot(), now);
                if let Some(claim) = claim {
                    tokio::spawn(self.start(call, new, claim));
                }
                Ok(response)
            }
        }
    }
}

/// Makes a call with a key a job before it begins, or joins the job of an earlier request.
///
/// Where it could be answered inline `within` a time it is a job all the same, and its response is
/// kept: that is what the key asks for.
pub(crate) async fn accept_keyed<S, B, R, St>(
    mut arrival: Arrival<St>,
    call: Call<S, B>,
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
    let mut read = arrival.read.take().expect("its body has been read");
    let new = match arrival.job(&read, &call, read.at) {
        Ok(new) => NewJob {
            run_here: within.is_some(),
            ..new
        },
        Err(refused) => return Problem::from(refused).counted().response(),
    };
    let record = read.record.take().expect("a request is recorded once");
    let accepted = arrival.registry.store.accept(&new, record).await;
    let (job, is_joined) = match arrival.settled(&new, accepted) {
        Err(refusal) => return refusal,
        Ok(Settled::Joined(job)) => {
            if strict && !job.status.is_ended() {
                return Problem::KeyInUse.counted().response();
            }
            telemetry::joined();
            (*job, true)
        }
        Ok(Settled::New(claim)) => {
            let job = new.snapshot();
            if let Some(claim) = claim {
                let mut running = arrival.start(call, &new, claim);
                // Where it is waited for, it is asked once before it goes to the background: what is ready at
                // once is answered inline.
                let first = match within {
                    None => Poll::Pending,
                    Some(_) => poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await,
                };
                if first.is_pending() {
                    tokio::spawn(running);
                }
            }
            (job, false)
        }
    };
    let mut response = match within {
        None => arrival.accepted(&read, &job, Instant::now()),
        Some(limit) => arrival.inline_or_accepted(&read, job.id, limit).await,
    };
    if is_joined {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    }
    response
}

/// The job's span: it follows from the request's, and outlives it.
pub(crate) fn span(id: JobId, method: &Method) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, end = Empty);
    if !span.is_disabled() {
        span.follows_from(Span::current());
    }
    span
}
