//! The public store type, and its `Store` and `Queue` implementations.

use std::{
    fmt,
    future::ready,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::Client;
use bytes::Bytes;
use http::{HeaderMap, request, response};
use tokio::task::{JoinSet, yield_now};

use super::{
    cancel,
    changes::NatsChanges,
    claim::NatsClaim,
    clock::system_time,
    dequeue::{self, NatsTicket},
    error::NatsError,
    finish,
    jetstream::JetStream,
    list,
    options::NatsOptions,
    outbox::NatsOutbox,
    process::ProcessState,
    read,
    report::PendingReport,
    request::NatsRecord,
    retry::Retry,
    submit, tasks,
    writer::NatsWriter,
};
use crate::{
    Filter, JobId, Page,
    store::{
        Acceptance, Budget, Charge, End, Finished, Lookup, NewJob, News, Purpose, Queue, Reading,
        Report, Revisions, SharedOutbox, Store, StoreFuture, Work,
    },
};

/// The time limit for the retries of [`NatsStore::connect`].
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// A store that keeps jobs in NATS JetStream.
///
/// Every process that connects with the same options finds all jobs, and any
/// [`Worker`](crate::Worker) runs them. The [guide](crate::guide::nats) states what the store
/// guarantees, and how to operate it.
///
/// Its memory budget covers request bodies being read, responses until they are stored, and what is
/// being sent of each response. [`JobsBuilder::max_bytes`](crate::JobsBuilder::max_bytes) sets
/// its limit. Default: 256 MiB. Processes may use different values.
///
/// Clones share one connection.
///
/// ```no_run
/// use tower_accepted::{
///     Jobs,
///     store::nats::{NatsOptions, NatsStore},
/// };
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
/// let options = NatsOptions::new().prefix("reports").replicas(3);
/// let jobs = Jobs::builder()
///     .store(NatsStore::connect(client, options).await?)
///     .build();
/// # drop(jobs);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NatsStore {
    process: Arc<ProcessState>,
    outbox: Arc<NatsOutbox>,
    /// Stops the background tasks when the last clone is dropped.
    _tasks: Arc<JoinSet<()>>,
}

impl NatsStore {
    /// Connects to the streams that the options name, and creates those that do not exist.
    ///
    /// Several processes may connect at the same time. Failures are retried for about 15 s, since a
    /// cluster needs time to elect leaders for new streams.
    ///
    /// # Errors
    ///
    /// - [`NatsError::Unavailable`] if JetStream does not answer or cannot create the streams.
    /// - [`NatsError::ConfigMismatch`] if a stream exists with other settings.
    /// - [`NatsError::InvalidPrefix`] if the prefix of the options is invalid.
    pub async fn connect(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        options.check()?;
        let mut retry = Retry::within(CONNECT_PATIENCE);
        loop {
            match Self::connect_once(client.clone(), options.clone()).await {
                Err(error @ NatsError::Unavailable(_)) => {
                    retry.wait(error, &options.prefix).await?;
                }
                result => return result,
            }
        }
    }

    async fn connect_once(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        let jetstream = JetStream::connect(client, options).await?;
        let process = Arc::new(ProcessState::new(jetstream));
        let tasks = tasks::start(&process).await?;
        Ok(Self {
            outbox: Arc::new(NatsOutbox::new(process.jetstream.clone())),
            process,
            _tasks: Arc::new(tasks),
        })
    }
}

impl Store for NatsStore {
    type Error = NatsError;
    type Record = NatsRecord;
    type Changes = NatsChanges;
    type Claim = NatsClaim;
    type Writer = NatsWriter;

    fn budget(&self) -> &Budget {
        &self.process.jetstream.budget
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>> {
        ready(self.budget().reserve(bytes, purpose))
    }

    fn record(
        &self,
        head: &request::Parts,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> NatsRecord {
        NatsRecord::new(&self.process.jetstream.options, head, body, trailers)
    }

    fn accept(
        &self,
        job: &NewJob,
        record: NatsRecord,
    ) -> impl StoreFuture<Result<Acceptance<NatsClaim>, NatsError>> {
        // Several writes, so on a task of its own: a dropped future must not stop between them.
        let accepting = tokio::spawn(submit::accept(self.process.clone(), job.clone(), record));
        Box::pin(async {
            let accepted = accepting.await;
            accepted.unwrap_or_else(|error| Err(NatsError::unavailable(error)))
        })
    }

    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, NatsError>> {
        let process = self.process.clone();
        Box::pin(async move {
            // The first poll may happen outside a runtime, with a waker that does nothing. Do not
            // start the request there.
            yield_now().await;
            process.jetstream.lookup(id).await
        })
    }

    fn changes(&self, id: JobId) -> NatsChanges {
        NatsChanges::new(&self.process, id)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, NatsError> {
        list::list(&self.process.jetstream, filter).await
    }

    /// Merges the report into the claim's pending one, which a background task writes within a
    /// fraction of a second. So frequent reports do not slow the call down.
    fn report(&self, claim: &NatsClaim, report: Report) -> impl StoreFuture<Result<(), NatsError>> {
        let mut pending = PendingReport {
            estimated_finish: report.estimated_finish,
            ..PendingReport::default()
        };
        {
            let mut state = claim.active.state.lock();
            if let News::Started(at) = report.news {
                if state.record.started_at.is_none() {
                    pending.started = Some(system_time(at));
                }
            } else if let News::Progress(progress) = report.news {
                pending.progress = Some(progress);
            }
            if pending.is_empty() {
                return ready(Ok(()));
            }
            state.report = pending.or(std::mem::take(&mut state.report));
        }
        self.process.claims.write_requested.notify_one();
        ready(Ok(()))
    }

    fn respond(&self, claim: &NatsClaim, head: response::Parts, length: Option<u64>) -> NatsWriter {
        NatsWriter::new(&self.process.jetstream, &claim.active, head, length)
    }

    fn finish(
        &self,
        claim: &NatsClaim,
        end: End<NatsWriter>,
    ) -> impl StoreFuture<Result<Finished, NatsError>> {
        let (process, active) = (self.process.clone(), claim.active.clone());
        Box::pin(async move { finish::finish(&process.jetstream, &active, end).await })
    }

    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, NatsError> {
        read::read(&self.process, id, from).await
    }

    fn outbox(&self) -> Option<SharedOutbox<NatsError>> {
        Some(self.outbox.clone())
    }

    fn poll_canceled(&self, claim: &NatsClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.poll_lost(cx)
    }

    async fn cancel(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, NatsError> {
        cancel::cancel(&self.process.jetstream, id, revisions).await
    }

    async fn forget(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, NatsError> {
        cancel::forget(&self.process.jetstream, id, revisions).await
    }
}

impl Queue for NatsStore {
    type Ticket = NatsTicket;

    async fn next(&self, max: usize) -> Result<Vec<NatsTicket>, NatsError> {
        dequeue::next(&self.process.jetstream, max).await
    }

    async fn claim(&self, ticket: NatsTicket) -> Result<Option<Work<NatsClaim>>, NatsError> {
        dequeue::claim(&self.process, ticket).await
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jetstream = &self.process.jetstream;
        f.debug_struct("NatsStore")
            .field("options", &jetstream.options)
            .field("budget", &jetstream.budget)
            .finish_non_exhaustive()
    }
}
