//! Runs the requests of a queue.

use std::{error::Error, fmt, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body::Body;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};
use tower_service::Service;
use tracing::{Instrument, Span};

use super::{
    call::Call, drive::Run, inner::InnerService, job::Job, payload::drop_payload,
    request_body::RequestBody, span::JobSpans, worker_call::WorkerCall,
};
use crate::{
    job::{ErrorCode, JobId},
    limit::JobPermit,
    protocol::BoxError,
    registry::Registry,
    store::{End, Finished, KeyOutcome, Outcome, Queue, Work},
    telemetry,
};

/// The default number of requests that a worker runs at a time.
const DEFAULT_CONCURRENCY: usize = 64;

/// The pause of a worker after an error of its store.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The time limit for a claim that is in flight at a shutdown. The worker waits for it to hand the
/// request back. Otherwise the request is delivered again only after its lease has expired.
const LAST_CLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the requests of a queue; created by [`Jobs::worker`](crate::Jobs::worker).
///
/// It takes a request only when it has a free slot for it, so that waiting requests go to any
/// worker that is free. [`Jobs::drain`](crate::Jobs::drain) ends it: it takes no more requests and
/// waits for those that it runs. After the drain's timeout, it hands back those that may run again.
#[must_use = "a worker does nothing until it is run"]
pub struct Worker<S, B, St> {
    registry: Arc<Registry<St>>,
    service: S,
    concurrency: usize,
    spans: JobSpans,
    body: PhantomData<fn(B)>,
}

impl<S, B, St> Worker<S, B, St> {
    pub(crate) fn new(registry: Arc<Registry<St>>, service: S) -> Self {
        Self {
            registry,
            service,
            concurrency: DEFAULT_CONCURRENCY,
            spans: JobSpans::default(),
            body: PhantomData,
        }
    }

    /// Sets the maximum number of requests that run at a time, at least 1. Default: 64.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Makes the spans of the jobs that this worker runs, as
    /// [`AcceptedLayer::make_span`](crate::AcceptedLayer::make_span) does for jobs that start in
    /// the process that accepts them.
    pub fn make_span<F>(mut self, make_span: F) -> Self
    where
        F: Fn(&Parts, JobId, &str) -> Span + Send + Sync + 'static,
    {
        self.spans = JobSpans::new(make_span);
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
    /// Takes and runs requests until the registry is [drained](crate::Jobs::drain).
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, its calls are dropped too. Their jobs are treated like those of a
    /// process that hangs: another worker runs each job that may run again, once its lease ends.
    pub async fn run(self) {
        let registry = &self.registry;
        #[cfg(feature = "webhook")]
        if let Some(notifier) = &registry.notifier {
            notifier.start();
        }
        let slots = Arc::new(Semaphore::new(self.concurrency));
        // Owns the calls: they end with it.
        let mut running = JoinSet::new();
        let mut draining = pin!(registry.draining());
        loop {
            let free = select! {
                biased;
                () = &mut draining => break,
                free = free_slots(&slots) => free,
            };
            // Awaited even if a drain begins meanwhile. A request that is delivered to a worker
            // that has left is delivered again only after its lease has expired.
            for (ticket, slot) in next_tickets(registry, free).await {
                // A drain has begun: the ticket goes back unclaimed.
                let Ok(permit) = registry.permits.acquire_beyond_limit() else {
                    break;
                };
                let (registry, service) = (registry.clone(), self.service.clone());
                let spans = self.spans.clone();
                running.spawn(async move {
                    run_ticket(registry, service, &spans, ticket, permit.into_job()).await;
                    drop(slot);
                });
            }
            while let Some(joined) = running.try_join_next() {
                reap(joined);
            }
        }
        while let Some(joined) = running.join_next().await {
            reap(joined);
        }
    }
}

/// Drops the result of a call's task. It is a panic if the destructor of the call has panicked.
fn reap(joined: Result<(), JoinError>) {
    if let Err(error) = joined
        && let Ok(payload) = error.try_into_panic()
    {
        drop_payload(payload);
    }
}

/// Waits for a free slot, and takes all that are free.
async fn free_slots(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let first = slots.clone().acquire_owned().await.ok();
    let more = std::iter::from_fn(|| slots.clone().try_acquire_owned().ok());
    first.into_iter().chain(more).collect()
}

/// Waits for requests, at most one for each free slot.
async fn next_tickets<St: Queue>(
    registry: &Registry<St>,
    free: Vec<OwnedSemaphorePermit>,
) -> Vec<(St::Ticket, OwnedSemaphorePermit)> {
    match registry.store.next(free.len()).await {
        Ok(tickets) => tickets.into_iter().zip(free).collect(),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "failed to take requests from the store"
            );
            sleep(RETRY_DELAY).await;
            Vec::new()
        }
    }
}

async fn run_ticket<S, B, St>(
    registry: Arc<Registry<St>>,
    service: S,
    spans: &JobSpans,
    ticket: St::Ticket,
    permit: JobPermit,
) where
    S: InnerService<B>,
    B: Send + 'static,
    St: Queue,
{
    let stopped = async {
        registry.stop.stopped().await;
        sleep(LAST_CLAIM_TIMEOUT).await;
    };
    let claimed = select! {
        biased;
        claimed = registry.store.claim(ticket) => claimed,
        () = stopped => return,
    };
    let mut work = match claimed {
        Ok(Some(work)) => work,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "failed to claim a request, which will be delivered again"
            );
            return;
        }
    };
    work.head.extensions.insert(WorkerCall::of(&registry));
    let (head, kind) = (&work.head, work.kind.as_str());
    let span = spans.make(Some(head), work.id, &head.method, kind);
    if registry.stop.is_stopped() {
        return hand_back(&registry, &work).instrument(span).await;
    }
    #[cfg(feature = "webhook")]
    if let (Some(notifier), Some(targets)) = (&registry.notifier, &work.callbacks) {
        let (store, id) = (registry.store.clone(), work.id);
        notifier.follow(targets, move || store.changes(id));
    }
    let job = Job {
        kind: registry.estimates.kind(work.kind.as_str()),
        registry,
        created: work.created,
        created_at: work.created_at,
        limited_from: Instant::now(),
        is_head: work.head.method == Method::HEAD,
        is_owned: work.is_owned,
        outcomes: work.outcomes,
        claim: work.claim,
        _permit: Some(permit),
    };
    // A handler may keep the bytes for as long as its call runs.
    let (body, _charge) = RequestBody::buffered(work.body);
    let call = Call::new(service, work.head, body);
    Run::new(call, work.id, job, None).instrument(span).await;
}

/// Hands back a request that was claimed after the calls were stopped.
async fn hand_back<St: Queue>(registry: &Registry<St>, work: &Work<St::Claim>) {
    let code = ErrorCode::Shutdown;
    Span::current().record("end", code.as_str());
    let mut end = End::new(Outcome::NoResponse(code));
    // The request has not reached the service.
    end.key = KeyOutcome::Release;
    match registry.store.finish(&work.claim, end).await {
        Ok(Finished::First) => telemetry::ended(code.as_str()),
        Ok(_) => {}
        Err(error) => tracing::error!(
            error = &error as &dyn Error,
            "failed to hand back a request"
        ),
    }
}

impl<S, B, St> fmt::Debug for Worker<S, B, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("concurrency", &self.concurrency)
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}
