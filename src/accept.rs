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
};

/// A request that may become a job, and all that this takes but the call.
pub(crate) struct Offer<St: Store> {
    pub(crate) registry: Arc<Registry<St>>,
    /// The place for it; without one it can only join a job that is there.
    pub(crate) slot: Result<Slot, Refused>,
    pub(crate) arrival: Arrival,
    pub(crate) record: St::Record,
}

/// What is left to know of a request once it has become a call.
pub(crate) struct Arrival {
    method: Method,
    /// The path, where links depend on it.
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    owner: Option<Owner>,
    key: Option<(Key, Fingerprint)>,
    at: Instant,
    at_wall_clock: SystemTime,
}

impl Arrival {
    /// A request whose body has just been read.
    pub(crate) fn new(
        head: &Parts,
        links: &Links,
        prefer: Prefer,
        owner: Option<Owner>,
        key: Option<(Key, Fingerprint)>,
    ) -> Self {
        Self {
            method: head.method.clone(),
            path: (*links == Links::Relative).then(|| head.uri.path().into()),
            prefer,
            format: Format::preferred(&head.headers),
            owner,
            key,
            at: Instant::now(),
            at_wall_clock: SystemTime::now(),
        }
    }

    fn job(&self, started: Option<Instant>, progress: Progress, join_only: bool) -> NewJob {
        NewJob {
            id: JobId::random(),
            created: self.at,
            created_at: self.at_wall_clock,
            started,
            progress,
            owner: self.owner,
            key: self.key,
            join_only,
        }
    }

    /// The job's span: it follows from the request's, and outlives it.
    fn span(&self, id: JobId) -> Span {
        let span = info_span!(parent: None, "job", %id, method = %self.method, end = Empty);
        span.follows_from(Span::current());
        span
    }
}

/// Makes a call that has not begun a job, or joins the job of an earlier request with its key.
///
/// A call that could be answered inline `within` a time begins as a job all the same where it has a
/// key, and its response is kept: that is what the key asks for.
pub(crate) async fn at_once<S, B, R, St>(
    offer: Offer<St>,
    call: Call<S, B>,
    within: Option<Duration>,
    strict: bool,
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
    let mut promised = match promise(offer, None, Progress::default()).await {
        Ok(promised) => promised,
        Err(refusal) => return refusal,
    };
    let is_joined = promised.run.is_none();
    if is_joined && strict && !promised.snapshot.status.is_ended() {
        return Problem::KeyInUse.response();
    }
    match (promised.run.take(), within) {
        (None, _) => {}
        (Some((job, span)), None) => {
            tokio::spawn(run::run(call, job).instrument(span));
        }
        (Some((job, span)), Some(_)) => {
            // Asked once before it goes to the background: what is ready at once is answered inline.
            let mut running = Box::pin(run::run(call, job).instrument(span));
            let first = poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await;
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

/// Makes a call that runs a job, and answers 202; or gives it back, to go on inline.
pub(crate) async fn hand_over<S, B, R, St>(
    offer: Offer<St>,
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
    match promise(offer, call.started(), call.progress()).await {
        Ok(mut promised) => {
            if let Some((job, span)) = promised.run.take() {
                tokio::spawn(run::run_on(call, job).instrument(span));
            }
            Ok(promised.accepted())
        }
        Err(_) => Err(call),
    }
}

/// A job that is in the store, so that its 202 may go out.
struct Promised<St: Store> {
    registry: Arc<Registry<St>>,
    snapshot: Snapshot,
    path: Option<Box<str>>,
    prefer: Prefer,
    format: Format,
    /// What is to run; nothing where an earlier request's job was joined.
    run: Option<(Job<St>, Span)>,
}

/// Makes the job, or finds that of an earlier request.
async fn promise<St: Store>(
    offer: Offer<St>,
    started: Option<Instant>,
    progress: Progress,
) -> Result<Promised<St>, Response<Replay>> {
    let Offer {
        registry,
        slot,
        arrival,
        record,
    } = offer;
    // The body may have taken its time: a drain that has begun since is not to wait for new work.
    let slot = match registry.gate.is_closed() {
        true => Err(Refused::Draining),
        false => slot,
    };
    if let (Err(refused), None) = (&slot, &arrival.key) {
        return Err(Problem::from(*refused).response());
    }
    let new = arrival.job(started, progress, slot.is_err());
    let snapshot = new.snapshot();
    let accepted = registry.store.accept(new, record).await;
    let (claim, slot) = match accepted.map_err(|error| problem::store_failed(&error))? {
        Acceptance::Joined(snapshot) => {
            return Ok(Promised {
                registry,
                snapshot: *snapshot,
                path: arrival.path,
                prefer: arrival.prefer,
                format: arrival.format,
                run: None,
            });
        }
        Acceptance::KeyReused => return Err(Problem::KeyReused.response()),
        Acceptance::Full => {
            let refused = slot.err().unwrap_or(Refused::Full);
            return Err(Problem::from(refused).response());
        }
        Acceptance::RunHere(claim) => match slot {
            Ok(slot) => (claim, slot),
            // A store that makes a job where it was only to join one; the claim's drop ends it.
            Err(refused) => return Err(Problem::from(refused).response()),
        },
    };
    let span = arrival.span(snapshot.id);
    let job = Job {
        id: snapshot.id,
        registry: registry.clone(),
        created: arrival.at,
        is_head: arrival.method == Method::HEAD,
        is_owned: arrival.owner.is_some(),
        claim,
        _slot: slot,
    };
    Ok(Promised {
        registry,
        snapshot,
        path: arrival.path,
        prefer: arrival.prefer,
        format: arrival.format,
        run: Some((job, span)),
    })
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
            _ => self.snapshot,
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
