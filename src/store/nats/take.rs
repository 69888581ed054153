//! How a request leaves the queue.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, Message, message::Acker};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{runtime::Handle, time::timeout};

use super::{
    NatsError,
    claim::{Delivery, Held, NatsClaim},
    envelope::open,
    names::Names,
    parts,
    record::{Record, instant, now, time, whole_millis},
    request::Asked,
    shared::{Found, Shared},
};
use crate::{
    collect::Collected,
    estimate::Kind,
    job::{ErrorCode, Event, JobId},
    store::Work,
};

/// How long a request for work waits at the server, and so a worker that is to leave for its answer: one
/// that nobody waits for any more swallows a request that is handed back, with server 2.9.
const WAIT: Duration = Duration::from_secs(2);

/// How long the server may take to tell that there is none.
const GRACE: Duration = Duration::from_secs(5);

/// The longest pause before a request is begun again.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A request that JetStream has handed to this process. Dropped, it is handed out again at once.
#[derive(Debug)]
pub struct NatsTicket {
    /// Until it is claimed.
    message: Option<Message>,
}

impl Drop for NatsTicket {
    fn drop(&mut self) {
        // Without a runtime it is handed out when its lease has ended.
        let (Some(message), Ok(runtime)) = (self.message.take(), Handle::try_current()) else {
            return;
        };
        // Ends by itself: it waits for room in the connection's buffer, and not for long.
        runtime.spawn(timeout(GRACE, async move {
            if message.ack_with(AckKind::Nak(None)).await.is_ok() {
                let _ = message.context.client().flush().await;
            }
        }));
    }
}

/// What is to be done with a request that was handed out.
enum Verdict {
    /// It is claimed, with this record at this place.
    Run(Record, u64),
    /// Its job has ended.
    Done(Record),
    /// It is not for now.
    Later(Duration),
}

/// Waits for requests, and takes all that are there up to `most`.
pub(super) async fn next(shared: &Shared, most: usize) -> Result<Vec<NatsTicket>, NatsError> {
    let workers = &shared.streams.workers;
    // Those that are there, in one go; else the first that comes.
    let fetching = workers.fetch().max_messages(most).messages();
    let mut tickets = Vec::new();
    gather(fetching.await, GRACE, &mut tickets).await?;
    if tickets.is_empty() {
        let waiting = workers.batch().max_messages(1).expires(WAIT).messages();
        gather(waiting.await, WAIT + GRACE, &mut tickets).await?;
    }
    Ok(tickets)
}

async fn gather(
    batch: Result<
        async_nats::jetstream::consumer::pull::Batch,
        async_nats::jetstream::consumer::pull::BatchError,
    >,
    limit: Duration,
    tickets: &mut Vec<NatsTicket>,
) -> Result<(), NatsError> {
    let mut batch = batch.map_err(NatsError::unavailable)?;
    let gathering = async {
        while let Some(message) = batch.next().await {
            match message {
                Ok(message) => tickets.push(NatsTicket {
                    message: Some(message),
                }),
                // What was handed out before is not to wait for its lease to end.
                Err(_) if !tickets.is_empty() => break,
                Err(error) => return Err(NatsError::Unavailable(error)),
            }
        }
        Ok(())
    };
    // No answer at all: the leader has changed, and the next one knows nothing of this.
    timeout(limit, gathering).await.unwrap_or(Ok(()))
}

/// Claims a request, unless that is not to be.
pub(super) async fn claim(
    shared: &Arc<Shared>,
    mut ticket: NatsTicket,
) -> Result<Option<Work<NatsClaim>>, NatsError> {
    let Some(message) = ticket.message.take() else {
        return Ok(None);
    };
    let delivered = message.info().map_err(NatsError::Unavailable)?.delivered;
    let (message, acker) = message.split();
    let acker = Arc::new(acker);
    let subject = message.subject.as_str();
    let opened = match Names::id(subject) {
        Some(id) => open::<Asked>(subject, message.payload).map(|(asked, body)| (id, asked, body)),
        None => Err(NatsError::unreadable(subject, "not a job's")),
    };
    let (id, asked, body) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // A newer version may have written it, and may have a worker too.
            settle(&acker, AckKind::Nak(Some(shared.options.lease))).await?;
            return Err(error);
        }
    };
    let claim = rand::random();
    let may_rerun = asked.may_rerun(&shared.options);
    // Known to who watches for others before anybody can see it.
    let delivery = Delivery::Taken(acker.clone());
    let held = Held::new(id, claim, delivery, may_rerun, Record::queued(&asked), 0);
    let claimed = NatsClaim::new(shared, held);
    let attempt = Attempt {
        shared,
        id,
        asked: &asked,
        claim,
        may_rerun,
        delivered,
    };
    let verdict = attempt.decide().await?;
    match verdict {
        Verdict::Run(record, sequence) => claimed.held.wrote(record, sequence),
        Verdict::Later(pause) => {
            settle(&acker, AckKind::Nak(Some(pause))).await?;
            return Ok(None);
        }
        Verdict::Done(record) => {
            shared.tidy(id, &record).await?;
            settle(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
    }
    let Some(body) = whole_body(shared, id, &asked, body).await? else {
        tracing::error!(%id, "the request's body has expired");
        return give_up(shared, claimed).await;
    };
    let (created_at, is_owned) = (asked.created_at, asked.owner.is_some());
    let kind = Kind::new(&asked.kind);
    let (head, trailers) = match asked.into_head(&shared.options) {
        Ok(head) => head,
        Err(error) => {
            tracing::error!(%id, %error, "the request cannot be read");
            return give_up(shared, claimed).await;
        }
    };
    let body = Collected {
        // Of no other use to the budget than to know: it is here already.
        charge: shared.budget.reserve(body.len()),
        bytes: body,
        trailers: trailers.map(Box::new),
    };
    Ok(Some(Work {
        claim: claimed,
        id,
        created: instant(created_at),
        created_at: time(created_at),
        kind,
        is_owned,
        head,
        body,
    }))
}

async fn whole_body(
    shared: &Shared,
    id: JobId,
    asked: &Asked,
    body: Bytes,
) -> Result<Option<Bytes>, NatsError> {
    match asked.parts {
        None => Ok(Some(body)),
        Some(count) => {
            let subject = |part| shared.names.request_part(id, part);
            parts::read(&shared.streams.requests, subject, count).await
        }
    }
}

async fn give_up(
    shared: &Arc<Shared>,
    claimed: NatsClaim,
) -> Result<Option<Work<NatsClaim>>, NatsError> {
    let held = &claimed.held;
    let retain = shared.options.retain;
    let lost = |record: &mut Record| record.end(Event::Broke(ErrorCode::Lost), retain);
    if held.end(shared, b"", lost).await? {
        held.acknowledge(shared).await?;
    }
    Ok(None)
}

async fn settle(acker: &Acker, kind: AckKind) -> Result<(), NatsError> {
    let settled = acker.ack_with(kind).await;
    settled.map_err(NatsError::unavailable)
}

/// A request that was handed out, and what is known about that.
struct Attempt<'a> {
    shared: &'a Shared,
    id: JobId,
    asked: &'a Asked,
    claim: u64,
    may_rerun: bool,
    /// How often it was handed out, this time included.
    delivered: i64,
}

impl Attempt<'_> {
    async fn decide(&self) -> Result<Verdict, NatsError> {
        let run = self.shared.names.run(self.id);
        let mut record = Record::queued(self.asked);
        if self.may_be_forgotten() {
            self.lose(&mut record);
        } else {
            record.claim(self.claim);
        }
        if let Some(sequence) = self.put(&run, &mut record, 0).await? {
            return Ok(self.verdict(record, sequence));
        }
        match self.shared.record(self.id).await? {
            Some(found) => self.decide_on(found).await,
            // Expired in between: once more, from the beginning.
            None => Ok(Verdict::Later(Duration::from_millis(100))),
        }
    }

    /// What becomes of a job that has a record.
    async fn decide_on(&self, found: Found) -> Result<Verdict, NatsError> {
        let (mut record, mut at) = (found.record, found.sequence);
        let mut subject = found.subject;
        let options = &self.shared.options;
        let lease = options.lease;
        if record.is_ended() {
            return Ok(Verdict::Done(record));
        }
        match record.holder {
            None => {
                let pause = record.not_before.map_or(0, |at| at.saturating_sub(now()));
                if pause > 0 {
                    return Ok(Verdict::Later(Duration::from_millis(pause)));
                }
                record.claim(self.claim);
            }
            // It was written by this attempt, whose answer was lost.
            Some(holder) if holder.claim == self.claim => {}
            // Its process runs it, and says until when that is to be believed.
            Some(holder) if holder.until.is_some_and(|until| until > now()) => {
                let left = holder.until.unwrap_or_default().saturating_sub(now());
                return Ok(Verdict::Later(Duration::from_millis(left + 500)));
            }
            // Handed out once, and yet somebody has it: the servers have lost count. If that one is
            // gone, its lease will tell.
            Some(holder) if holder.until.is_none() && self.delivered <= 1 => {
                return Ok(Verdict::Later(lease));
            }
            // Whoever ran it is gone.
            Some(_) if !self.may_rerun || record.attempts >= options.attempts => {
                self.lose(&mut record);
                (subject, at) = (self.shared.names.end(self.id), 0);
            }
            Some(_) if record.attempts <= 1 => record.claim(self.claim),
            Some(_) => {
                let doublings = record.attempts.saturating_sub(2).min(16);
                let pause = (lease * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
                record.hand_back(pause);
                return match self.put(&subject, &mut record, at).await? {
                    Some(_) => Ok(Verdict::Later(pause)),
                    None => Ok(Verdict::Later(Duration::from_millis(100))),
                };
            }
        }
        match self.put(&subject, &mut record, at).await? {
            Some(sequence) => Ok(self.verdict(record, sequence)),
            // Somebody was faster: what there is to do about that is seen when it is handed out again.
            None => Ok(Verdict::Later(Duration::from_millis(100))),
        }
    }

    fn verdict(&self, record: Record, sequence: u64) -> Verdict {
        match record.is_ended() {
            true => Verdict::Done(record),
            false => Verdict::Run(record, sequence),
        }
    }

    /// Whether it may have been begun so long ago that the record of it has expired. What must not be
    /// begun twice is then not begun.
    fn may_be_forgotten(&self) -> bool {
        let age = now().saturating_sub(self.asked.created_at);
        self.delivered > 1 && !self.may_rerun && age > whole_millis(self.shared.options.retain)
    }

    fn lose(&self, record: &mut Record) {
        tracing::warn!(id = %self.id, attempts = record.attempts, "the process that ran it is gone");
        let retain = self.shared.options.retain;
        record.end(Event::Broke(ErrorCode::Lost), retain);
    }

    async fn put(
        &self,
        subject: &str,
        record: &mut Record,
        expected: u64,
    ) -> Result<Option<u64>, NatsError> {
        let claim = Some(self.claim);
        // Longer than for a client: what is claimed and not known to be looks like a claim of the dead.
        let patience = self.shared.options.lease / 2;
        let put = self
            .shared
            .put(subject, record, b"", expected, claim, patience);
        put.await
    }
}
