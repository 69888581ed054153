//! Jobs in NATS JetStream: [the story](crate::nats).

mod active;
mod attempt;
mod barrier;
mod cancel;
mod changes;
mod chunks;
mod clock;
mod depth;
mod dequeue;
mod envelope;
mod error;
mod finish;
mod jetstream;
mod list;
mod messages;
mod names;
mod options;
mod record;
mod refresh;
mod request;
mod streams;
mod submit;
mod subscribers;
mod tasks;

use std::{
    fmt,
    future::{Future, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::Client;
use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use tokio::task::{JoinSet, yield_now};

pub use self::{
    active::NatsClaim,
    changes::NatsChanges,
    dequeue::NatsTicket,
    error::NatsError,
    options::{NatsOptions, Rerun, Storage},
    request::NatsRecord,
};
use self::{
    jetstream::JetStream,
    messages::Retry,
    record::{PendingReport, StoredResponse},
};
use super::{Acceptance, End, Finished, Lookup, NewJob, News, Queue, Report, Store, Work};
use crate::{
    job::{Filter, JobId, Page},
    limit::Charge,
    middleware::Replay,
};

/// Keeps jobs in NATS JetStream, where every process that is connected to it finds them, and any
/// [`Worker`](crate::Worker) runs them.
///
/// What it promises and what it does not, how to size it and what to watch: [the
/// story](crate::nats).
#[derive(Clone)]
pub struct NatsStore {
    shared: Arc<JetStream>,
    /// Ended with the last clone.
    _tasks: Arc<JoinSet<()>>,
}

/// For how long it is tried to connect.
const CONNECTING: Duration = Duration::from_secs(15);

impl NatsStore {
    /// Connects to the jobs of these options: makes the streams and the consumer where they are not.
    ///
    /// Any number of processes may do so at a time. What fails is repeated for some 15 s: a cluster takes a while to
    /// elect the leaders of what has just been made.
    ///
    /// # Errors
    ///
    /// [`NatsError::Unavailable`]: JetStream does not answer, or cannot make them.
    /// [`NatsError::Unfit`]: there are streams of these names that are set up otherwise.
    pub async fn connect(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        let mut repeating = Retry::until(CONNECTING);
        loop {
            match Self::connect_once(client.clone(), options.clone()).await {
                Err(error @ NatsError::Unavailable(_)) => {
                    repeating.after(error, &options.prefix).await?;
                }
                done => return done,
            }
        }
    }

    async fn connect_once(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        let shared = Arc::new(JetStream::connect(client, options).await?);
        let tasks = tasks::start(&shared).await?;
        Ok(Self {
            shared,
            _tasks: Arc::new(tasks),
        })
    }
}

impl Store for NatsStore {
    type Error = NatsError;
    type Record = NatsRecord;
    type Changes = NatsChanges;
    type Claim = NatsClaim;

    fn record(&self, head: &Parts, body: &Bytes, trailers: Option<&HeaderMap>) -> NatsRecord {
        NatsRecord::new(&self.shared.options, head, body, trailers)
    }

    fn reserve(&self, bytes: usize) -> Option<Charge> {
        self.shared.budget.reserve(bytes)
    }

    fn accept(
        &self,
        job: &NewJob,
        record: NatsRecord,
    ) -> impl Future<Output = Result<Acceptance<NatsClaim>, NatsError>> + Send + Unpin + 'static
    {
        // Of several writes: on a task of its own, so that who hangs up does not leave half of them.
        let accepting = tokio::spawn(submit::accept(self.shared.clone(), job.clone(), record));
        Box::pin(async {
            let accepted = accepting.await;
            accepted.unwrap_or_else(|error| Err(NatsError::unavailable(error)))
        })
    }

    fn get(
        &self,
        id: JobId,
    ) -> impl Future<Output = Result<Lookup, NatsError>> + Send + Unpin + 'static {
        let shared = self.shared.clone();
        Box::pin(async move {
            // Not begun by who polls it first: there may be no runtime yet, and nobody to be woken.
            yield_now().await;
            shared.lookup(id).await
        })
    }

    fn changes(&self, id: JobId) -> NatsChanges {
        NatsChanges::new(&self.shared, id)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, NatsError> {
        list::list(&self.shared, filter).await
    }

    async fn result(&self, id: JobId) -> Result<Option<Response<Replay>>, NatsError> {
        let Some((kept, with_it)) = self.kept(id).await? else {
            return Ok(None);
        };
        let body = match kept.parts {
            None => with_it,
            Some(parts) => {
                // What this process holds until it is sent.
                let length = usize::try_from(kept.length).unwrap_or(usize::MAX);
                let Some(charge) = self.shared.budget.reserve(length) else {
                    return Err(NatsError::unavailable("no room for a result"));
                };
                match self.shared.result_body(id, parts).await? {
                    Some(body) => charge.hold(body),
                    None if self.kept(id).await?.is_none() => return Ok(None),
                    None => return Err(NatsError::unavailable("a result's body is not there")),
                }
            }
        };
        let (response, trailers) = kept.into_head();
        Ok(Some(response.map(|()| Replay::new(body, trailers))))
    }

    /// Written within a fraction of a second, so that a call which tells much is not slowed down.
    fn report(
        &self,
        claim: &NatsClaim,
        report: Report,
    ) -> impl Future<Output = Result<(), NatsError>> + Send + Unpin + 'static {
        {
            let mut state = claim.held.state.lock();
            let mut told = PendingReport {
                estimated_finish: report.estimated_finish,
                ..PendingReport::default()
            };
            match report.news {
                News::Started(_) if state.record.started_at.is_some() => {}
                News::Started(at) => told.started = Some(clock::time_of(at)),
                News::Progress(progress) => told.progress = Some(progress),
            }
            if told.is_empty() {
                return ready(Ok(()));
            }
            state.told = told.or(std::mem::take(&mut state.told));
        }
        self.shared.told.notify_one();
        ready(Ok(()))
    }

    fn finish(
        &self,
        claim: &NatsClaim,
        end: End,
    ) -> impl Future<Output = Result<Finished, NatsError>> + Send + Unpin + 'static {
        let (shared, held) = (self.shared.clone(), claim.held.clone());
        Box::pin(async move { finish::end(&shared, &held, end).await })
    }

    fn poll_canceled(&self, claim: &NatsClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.poll_canceled(cx)
    }

    async fn cancel(&self, id: JobId) -> Result<Lookup, NatsError> {
        cancel::end(&self.shared, id, false).await
    }

    async fn forget(&self, id: JobId) -> Result<Lookup, NatsError> {
        cancel::end(&self.shared, id, true).await
    }
}

impl NatsStore {
    /// The response that a job ended with, and what of its body is with it.
    async fn kept(&self, id: JobId) -> Result<Option<(StoredResponse, Bytes)>, NatsError> {
        let shared = &self.shared;
        let found = shared.barrier.read(|| shared.record(id)).await?;
        let found = found.filter(|found| !found.record.forgotten && !found.record.is_expired());
        Ok(found.and_then(|found| Some((found.record.response?, found.body))))
    }
}

impl Queue for NatsStore {
    type Ticket = NatsTicket;

    async fn next(&self, most: usize) -> Result<Vec<NatsTicket>, NatsError> {
        dequeue::next(&self.shared, most).await
    }

    async fn claim(&self, ticket: NatsTicket) -> Result<Option<Work<NatsClaim>>, NatsError> {
        dequeue::claim(&self.shared, ticket).await
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStore")
            .field("options", &self.shared.options)
            .field("budget", &self.shared.budget)
            .finish_non_exhaustive()
    }
}
