//! Jobs in NATS JetStream: [the story](crate::nats).

mod attempt;
mod barrier;
mod changes;
mod claim;
mod depth;
mod envelope;
mod error;
mod interest;
mod list;
mod log;
mod names;
mod options;
mod outside;
mod parts;
mod record;
mod request;
mod shared;
mod sharing;
mod streams;
mod submit;
mod take;
mod tasks;
mod waiting;

use std::{
    fmt,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use async_nats::{Client, jetstream::AckKind};
use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use tokio::task::yield_now;

pub use self::{
    changes::NatsChanges,
    claim::NatsClaim,
    error::NatsError,
    options::{NatsOptions, Rerun, Storage},
    request::NatsRecord,
    take::NatsTicket,
};
use self::{
    claim::{Delivery, Held},
    log::{Refused, Repeating},
    record::{Kept, Record, Told},
    shared::Shared,
    tasks::Tasks,
};
use super::{
    Acceptance, End, Experience, Finished, Lookup, NewJob, News, Outcome, Queue, Report, Store,
    Work,
};
use crate::{
    body::Replay,
    budget::Charge,
    collect::Collected,
    job::{ErrorCode, Event, JobId},
    list::{Filter, Page},
};

/// Keeps jobs in NATS JetStream, where every process that is connected to it finds them, and any
/// [`Worker`](crate::Worker) runs them.
///
/// What it promises and what it does not, how to size it and what to watch: [the
/// story](crate::nats).
#[derive(Clone)]
pub struct NatsStore {
    shared: Arc<Shared>,
    /// Ended with the last clone.
    _tasks: Arc<Tasks>,
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
        let mut repeating = Repeating::until(CONNECTING);
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
        let shared = Arc::new(Shared::connect(client, options).await?);
        let tasks = Tasks::start(&shared).await?;
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
            let mut told = Told {
                estimated_finish: report.estimated_finish,
                ..Told::default()
            };
            match report.news {
                News::Started(_) if state.record.started_at.is_some() => {}
                News::Started(at) => told.started = Some(record::time_of(at)),
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
        let (store, held) = (self.clone(), claim.held.clone());
        Box::pin(async move { store.end(&held, end).await })
    }

    fn canceled(&self, claim: &NatsClaim) -> impl Future<Output = ()> + Send + Unpin + 'static {
        Box::pin(claim.held.ended.clone().cancelled_owned())
    }

    async fn cancel(&self, id: JobId) -> Result<Lookup, NatsError> {
        outside::end(&self.shared, id, false).await
    }

    async fn forget(&self, id: JobId) -> Result<Lookup, NatsError> {
        outside::end(&self.shared, id, true).await
    }

    fn share(&self, experience: Experience) {
        self.shared.sharing.join(experience);
    }
}

impl NatsStore {
    /// Ends a job that this process runs, or hands it back.
    async fn end(&self, held: &Held, end: End) -> Result<Finished, NatsError> {
        let may_go_on = held.may_rerun || end.started.is_none();
        let (event, kept, body) = match end.outcome {
            Outcome::Broke(ErrorCode::Shutdown) if may_go_on => return self.hand_back(held).await,
            Outcome::Broke(code) => (Event::Broke(code), None, Bytes::new()),
            Outcome::Response(response) => {
                let event = Event::Responded(response.status());
                match self.keep_result(held, response).await {
                    Ok((kept, body)) => (event, Some(kept), body),
                    // Such are the limits that somebody has set.
                    Err(Refused::Full | Refused::TooLarge) => {
                        tracing::warn!(id = %held.id, "there is no room for a result");
                        (Event::Broke(ErrorCode::ResultTooLarge), None, Bytes::new())
                    }
                    Err(refused) => return Err(refused.into_error()),
                }
            }
        };
        let started = end.started.map(record::time_of);
        let retain = self.shared.options.retain;
        let write = async |event, kept: Option<Kept>, body: &[u8]| {
            let ended = |record: &mut Record| {
                if let Some(at) = started {
                    record.start(at);
                }
                record.progress(&end.progress);
                record.response = kept.clone();
                record.end(event, retain);
            };
            held.end(&self.shared, body, ended).await
        };
        let won = match write(event, kept, &body).await {
            Err(NatsError::TooLarge) => {
                let event = Event::Broke(ErrorCode::ResultTooLarge);
                write(event, None, b"").await?
            }
            ended => ended?,
        };
        if won {
            let record = held.state.lock().record.clone();
            let tidied = match self.shared.tidy(held.id, &record).await {
                Ok(()) => held.acknowledge(&self.shared).await,
                failed => failed,
            };
            // The request is handed out again then, and whoever gets it sees that its job has ended.
            if let Err(error) = tidied {
                tracing::warn!(
                    %error,
                    id = %held.id,
                    "an ended job's request is still in the queue"
                );
            }
        }
        match won {
            true => Ok(Finished::First),
            false => self.late(held).await,
        }
    }

    /// What became of a job that is not this claim's to end.
    async fn late(&self, held: &Held) -> Result<Finished, NatsError> {
        // This claim has ended it before.
        if held.state.lock().record.is_ended() {
            return Ok(Finished::Late);
        }
        let found = self.shared.record(held.id).await?;
        let canceled = Some(ErrorCode::Canceled);
        Ok(match found {
            Some(found) if found.record.error != canceled => Finished::TakenOver,
            // Of one that was deleted there may be nothing by now.
            _ => Finished::Late,
        })
    }

    /// The response that a job ended with, and what of its body is with it.
    async fn kept(&self, id: JobId) -> Result<Option<(Kept, Bytes)>, NatsError> {
        let shared = &self.shared;
        let found = shared.barrier.read(|| shared.record(id)).await?;
        let found = found.filter(|found| !found.record.forgotten && !found.record.is_expired());
        Ok(found.and_then(|found| Some((found.record.response?, found.body))))
    }

    /// Puts a result's body where it belongs: into the record, or into parts of its own.
    async fn keep_result(
        &self,
        held: &Held,
        response: Response<Collected>,
    ) -> Result<(Kept, Bytes), Refused> {
        let mut kept = Kept::new(&response);
        let body = response.into_body().bytes;
        if body.len() <= self.shared.inline() {
            return Ok((kept, body));
        }
        let (id, claim) = (held.id, held.claim);
        let subject = |part| self.shared.names.result_part(id, claim, part);
        let (context, size) = (&self.shared.context, self.shared.part());
        let count = parts::write(context, subject, &body, size, claim::PATIENCE).await?;
        kept.parts = Some(record::Parts { claim, count });
        Ok((kept, Bytes::new()))
    }

    /// Lets another process run it.
    async fn hand_back(&self, held: &Held) -> Result<Finished, NatsError> {
        let patience = claim::PATIENCE;
        let rewritten = held.rewrite(&self.shared, patience, Record::hand_back);
        if !rewritten.await? {
            return self.late(held).await;
        }
        if let Delivery::Taken(acker) = &held.delivery {
            // Whoever has claimed it since, this one having been thought dead, is not to lose it; and who claims it
            // only now does not, having written that a moment ago.
            let record = held.state.lock().record.clone();
            if self.shared.claim_after(held.id, &record).await?.is_some() {
                return Ok(Finished::TakenOver);
            }
            let returned = acker.ack_with(AckKind::Nak(None)).await;
            returned.map_err(NatsError::unavailable)?;
            // Before this process may go: else it is handed out when its lease has ended.
            let flushed = self.shared.context.client().flush().await;
            flushed.map_err(NatsError::unavailable)?;
        }
        Ok(Finished::HandedBack)
    }
}

impl Queue for NatsStore {
    type Ticket = NatsTicket;

    async fn next(&self, most: usize) -> Result<Vec<NatsTicket>, NatsError> {
        take::next(&self.shared, most).await
    }

    async fn claim(&self, ticket: NatsTicket) -> Result<Option<Work<NatsClaim>>, NatsError> {
        take::claim(&self.shared, ticket).await
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
