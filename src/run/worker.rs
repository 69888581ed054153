use std::{fmt, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tower::{BoxError, Service};
use tracing::{Instrument, Span};

use super::{
    call::Call,
    drive::{Job, Run},
};
use crate::{
    job::ErrorCode,
    jobs::{Jobs, Registry},
    limit::Slot,
    middleware::{RequestBody, admission},
    store::{End, Finished, Outcome, Queue, Work},
    telemetry,
};

/// How long a worker leaves a store alone that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a claim that is on its way when no call is to begin any more is waited for, to be given back: else
/// the request is handed out when its lease has ended, as that of a process that has gone.
const LAST_CLAIM: Duration = Duration::from_secs(5);

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
    let left = async {
        registry.gate.interrupts().shutdown().await;
        sleep(LAST_CLAIM).await;
    };
    let claimed = select! {
        biased;
        claimed = registry.store.claim(ticket) => claimed,
        () = left => return,
    };
    let work = match claimed {
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
    let span = admission::span(work.id, &work.head.method);
    if registry.gate.interrupts().is_shut_down() {
        return let_go(&registry, &work).instrument(span).await;
    }
    let job = Job {
        // The one that is known here, where it is.
        kind: registry.estimates.kind(work.kind.as_str()),
        registry,
        created: work.created,
        waited: whole_seconds(work.created.elapsed()),
        created_at: work.created_at,
        is_head: work.head.method == Method::HEAD,
        is_owned: work.is_owned,
        claim: work.claim,
        _slot: Some(slot),
    };
    let call = Call::new(service, work.head, RequestBody::read(work.body));
    Run::new(call, work.id, job).instrument(span).await;
}

/// A time in seconds, and what is left of it as one more.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_nanos().div_ceil(1_000_000_000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Gives a request back that was claimed when no call was to begin any more.
async fn let_go<St: Queue>(registry: &Registry<St>, work: &Work<St::Claim>) {
    let end = End::new(Outcome::Broke(ErrorCode::Shutdown));
    Span::current().record("end", ErrorCode::Shutdown.as_str());
    match registry.store.finish(&work.claim, end).await {
        Ok(Finished::First) => telemetry::ended(ErrorCode::Shutdown.as_str()),
        Ok(_) => {}
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "a request is not given back"
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
