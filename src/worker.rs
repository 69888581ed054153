use std::{fmt, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{BoxError, Service};
use tracing::{Instrument, Span};

use crate::{
    accept,
    body::RequestBody,
    gate::Slot,
    job::{ErrorCode, Progress},
    jobs::{Jobs, Registry},
    measure,
    run::{Job, Run},
    store::{End, Outcome, Queue, Work},
};

/// How long a worker leaves a store alone that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the requests of a queue: [`Jobs::worker`].
///
/// It takes no request before it has a place for it, so that what waits can go to whichever worker is
/// free. [`Jobs::drain`] ends it: it takes nothing more, waits for what it runs, and what outlasts the
/// drain is handed back to the queue where it may be run again.
#[must_use = "a worker does nothing until it is run"]
pub struct Worker<S, B, St> {
    jobs: Jobs<St>,
    service: S,
    concurrency: usize,
    body: PhantomData<fn(B)>,
}

impl<S, B, St> Worker<S, B, St> {
    pub(crate) fn new(jobs: Jobs<St>, service: S) -> Self {
        Self {
            jobs,
            service,
            concurrency: 64,
            body: PhantomData,
        }
    }

    /// How many requests are run at a time, 1 at least. Default: 64.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }
}

impl<S, B, R, St> Worker<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Queue,
{
    /// Takes and runs requests until the registry is [drained](Jobs::drain).
    ///
    /// # Cancel safety
    ///
    /// Dropped, what it runs is dropped too, and is treated as that of a process that has gone: another
    /// one runs it where it may be run again, after the time that the store waits for signs of life.
    pub async fn run(self) {
        let registry = &self.jobs.registry;
        let places = Arc::new(Semaphore::new(self.concurrency));
        // Owns the calls: they end with it.
        let mut running = JoinSet::new();
        let mut closed = pin!(registry.gate.closed());
        loop {
            let free = select! {
                biased;
                () = &mut closed => break,
                free = free(&places) => free,
            };
            // Waited for also when closed meanwhile: what is handed out to who has left is handed to
            // nobody else before its lease has ended.
            let taken = take(registry, free).await;
            for (ticket, place) in taken {
                // Closed meanwhile: the ticket goes back unclaimed.
                let Some(slot) = registry.gate.enter_beyond_limit() else {
                    break;
                };
                let (registry, service) = (registry.clone(), self.service.clone());
                running.spawn(async move {
                    work(registry, service, ticket, slot).await;
                    drop(place);
                });
            }
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
    }
}

/// Waits for a place, and takes all there are.
async fn free(places: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let first = places.clone().acquire_owned().await.ok();
    let more = std::iter::from_fn(|| places.clone().try_acquire_owned().ok());
    first.into_iter().chain(more).collect()
}

/// Waits a while for requests for these places.
async fn take<St: Queue>(
    registry: &Registry<St>,
    free: Vec<OwnedSemaphorePermit>,
) -> Vec<(St::Ticket, OwnedSemaphorePermit)> {
    match registry.store.next(free.len()).await {
        Ok(tickets) => tickets.into_iter().zip(free).collect(),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no work from the store"
            );
            sleep(PAUSE).await;
            Vec::new()
        }
    }
}

async fn work<S, B, R, St>(registry: Arc<Registry<St>>, service: S, ticket: St::Ticket, slot: Slot)
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Queue,
{
    let work = match registry.store.claim(ticket).await {
        Ok(Some(work)) => work,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "work not claimed: it will come again"
            );
            return;
        }
    };
    let span = accept::span(work.id, &work.head.method);
    if is_overdue(&registry, &work) {
        return time_out(&registry, &work).instrument(span).await;
    }
    let job = Job {
        id: work.id,
        // The one that is known here, where it is.
        kind: registry.estimates.kind(work.kind.as_str()),
        registry,
        created: work.created,
        created_at: work.created_at,
        is_head: work.head.method == Method::HEAD,
        is_owned: work.is_owned,
        claim: work.claim,
        _slot: Some(slot),
    };
    let mut run = Box::pin(Run::new(service, work.head, RequestBody::read(work.body)));
    run.as_mut().start(job);
    run.instrument(span).await;
}

/// Whether its time was up while it was in the queue.
fn is_overdue<St>(registry: &Registry<St>, work: &Work<impl Sized>) -> bool {
    let limit = registry.config.job_timeout;
    limit
        .and_then(|limit| work.created.checked_add(limit))
        .is_some_and(|end| end <= Instant::now())
}

async fn time_out<St: Queue>(registry: &Registry<St>, work: &Work<St::Claim>) {
    let end = End {
        started: None,
        progress: Progress::default(),
        outcome: Outcome::Broke(ErrorCode::Timeout),
    };
    Span::current().record("end", ErrorCode::Timeout.as_str());
    match registry.store.finish(&work.claim, end).await {
        Ok(_) => measure::ended(ErrorCode::Timeout.as_str()),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "the job's end is not stored"
        ),
    }
}

impl<S, B, St> fmt::Debug for Worker<S, B, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
