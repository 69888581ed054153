//! How a request leaves the queue.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, Message, message::Acker};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, request::Parts};
use tokio::{runtime::Handle, time::timeout};

use super::{
    NatsError,
    claim::{Delivery, Held, NatsClaim},
    envelope::open,
    log,
    names::Names,
    parts,
    record::{Record, instant, now, time},
    request::Asked,
    shared::{Found, Shared, found},
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

/// How long a request is left alone of which something could not be read.
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// The same where this process has no room for its body.
const NO_ROOM: Duration = Duration::from_secs(1);

/// The same where its job changes while it is looked at.
const SOON: Duration = Duration::from_millis(100);

/// How often a job that changes while it is looked at is looked at again.
const ROUNDS: usize = 3;

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

/// A request as it was handed out.
struct Opened {
    id: JobId,
    /// The job as it was made of it.
    queued: Record,
    may_rerun: bool,
    head: Parts,
    trailers: Option<HeaderMap>,
    /// What of its body is with it.
    body: Bytes,
}

/// What is to be done with a request that was handed out.
enum Verdict {
    Run(Claimed, Bytes),
    /// Its job has ended.
    Done(Record),
    /// There is another message of the same request, and somebody has that.
    Double,
    /// It is not for now.
    Later(Duration),
}

/// A claim that was written.
struct Claimed {
    record: Record,
    /// Where the record of the job's run is.
    run: u64,
    /// Whether it says so there.
    is_there: bool,
}

/// What is to be done, as far as what is known of the job tells.
enum Plan {
    Leave(Verdict),
    /// It is to be claimed, as this.
    Begin(Writing),
    Write(Writing),
}

/// A record that is to be written, and over what.
struct Writing {
    record: Record,
    subject: String,
    expected: u64,
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
///
/// Everything that the request takes to be run is read before. What goes wrong up to there leaves it as it
/// was; once a claim may be written it is found out whether it is, however long that takes.
pub(super) async fn claim(
    shared: &Arc<Shared>,
    mut ticket: NatsTicket,
) -> Result<Option<Work<NatsClaim>>, NatsError> {
    let Some(message) = ticket.message.take() else {
        return Ok(None);
    };
    let info = message.info().map_err(NatsError::Unavailable)?;
    let (delivered, place) = (info.delivered, info.stream_sequence);
    let (message, acker) = message.split();
    let acker = Arc::new(acker);
    let opened = match Opened::new(shared, &message.subject, message.payload) {
        Ok(opened) => opened,
        Err(error) => {
            // A newer version may have written it, and may have a worker too.
            settle(&acker, AckKind::Nak(Some(shared.options.lease))).await?;
            return Err(error);
        }
    };
    let (id, queued) = (opened.id, &opened.queued);
    // For a body that is here already it is of no other use than to know.
    let bytes = match queued.parts {
        None => opened.body.len(),
        Some(count) => count as usize * parts::LARGEST,
    };
    let charge = shared.budget.reserve(bytes.min(shared.budget.limit()));
    if charge.is_none() && queued.parts.is_some() {
        settle(&acker, AckKind::Nak(Some(NO_ROOM))).await?;
        return Ok(None);
    }
    let attempt = Attempt {
        shared,
        id,
        queued,
        claim: rand::random(),
        place,
        may_rerun: opened.may_rerun,
        delivered,
    };
    // Known to who watches for others before anybody can see it.
    let delivery = Delivery::Taken(acker.clone());
    let may_rerun = attempt.may_rerun;
    let held = Held::new(id, attempt.claim, delivery, may_rerun, queued.clone(), 0);
    let claim = NatsClaim::new(shared, held);
    let body = match attempt.decide(opened.body).await {
        Ok(Verdict::Run(claimed, body)) => {
            claim
                .held
                .took(claimed.record, claimed.run, claimed.is_there);
            body
        }
        Ok(Verdict::Later(pause)) => {
            settle(&acker, AckKind::Nak(Some(pause))).await?;
            return Ok(None);
        }
        Ok(Verdict::Done(record)) => {
            shared.tidy(id, &record).await?;
            settle(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
        Ok(Verdict::Double) => {
            settle(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
        Err(error) => {
            settle(&acker, AckKind::Nak(Some(AFTER_AN_ERROR))).await?;
            return Err(error);
        }
    };
    // Else who looks would see it wait until something is told of it.
    if claim.held.is_behind()
        && let Err(error) = claim.held.keep(shared).await
    {
        tracing::debug!(%error, %id, "a claim is not in the job's record yet");
    }
    let body = Collected {
        charge,
        bytes: body,
        trailers: opened.trailers.map(Box::new),
    };
    Ok(Some(Work {
        claim,
        id,
        created: instant(queued.created_at),
        created_at: time(queued.created_at),
        kind: Kind::new(&queued.kind),
        is_owned: queued.owner.is_some(),
        head: opened.head,
        body,
    }))
}

impl Opened {
    fn new(shared: &Shared, subject: &str, payload: Bytes) -> Result<Self, NatsError> {
        let Some(id) = Names::id(subject) else {
            return Err(NatsError::unreadable(subject, "not a job's"));
        };
        let (asked, body) = open::<Asked>(subject, payload)?;
        let (queued, options) = (Record::queued(&asked), &shared.options);
        let may_rerun = asked.may_rerun(options);
        let head = asked.into_head(options);
        let (head, trailers) = head.map_err(|error| NatsError::unreadable(subject, error))?;
        Ok(Self {
            id,
            queued,
            may_rerun,
            head,
            trailers,
            body,
        })
    }
}

async fn settle(acker: &Acker, kind: AckKind) -> Result<(), NatsError> {
    let settled = acker.ack_with(kind).await;
    settled.map_err(NatsError::unavailable)
}

/// A request that was handed out, and what is known about that.
///
/// Whatever decides who runs it is written where nothing was, in one step of the servers' (see [`Shared::put`]):
/// the first claim as the record of the job's run, each later one as a record of its own, named by how many there
/// were before. Who has written that has the job; the record of its run, where everybody reads, follows.
struct Attempt<'a> {
    shared: &'a Shared,
    id: JobId,
    queued: &'a Record,
    claim: u64,
    /// Where in the queue it is.
    place: u64,
    may_rerun: bool,
    /// How often it was handed out, this time included.
    delivered: i64,
}

impl Attempt<'_> {
    /// Finds out what is to be done with it. An error comes from before anything was written.
    async fn decide(&self, with_it: Bytes) -> Result<Verdict, NatsError> {
        let parts = self.queued.parts;
        let mut body = parts.is_none().then_some(with_it);
        // What is handed out for the first time has no record as a rule: that is tried without a look,
        // unless a large body would be read for it.
        let mut known = match self.delivered > 1 || body.is_none() {
            true => self.known().await?,
            false => None,
        };
        for _ in 0..ROUNDS {
            let is_known = known.is_some() || !self.may_be_forgotten().await?;
            let run = known.as_ref().map(|known| known.sequence);
            let mut writing = match self.plan(known, is_known) {
                Plan::Leave(verdict) => return Ok(verdict),
                Plan::Write(writing) => writing,
                Plan::Begin(writing) => {
                    if let (None, Some(count)) = (&body, parts) {
                        body = self.shared.request_body(self.id, count).await?;
                    }
                    match body {
                        Some(_) => self.begin(writing),
                        None => self.lose(writing, "the request's body has expired"),
                    }
                }
            };
            if let Some(sequence) = self.put(&mut writing).await? {
                let record = writing.record;
                return Ok(match record.holder {
                    Some(_) => {
                        let claimed = Claimed {
                            record,
                            run: run.unwrap_or(sequence),
                            is_there: run.is_none(),
                        };
                        Verdict::Run(claimed, body.unwrap_or_default())
                    }
                    None if record.is_ended() => Verdict::Done(record),
                    None => Verdict::Later(record.pause()),
                });
            }
            // Somebody was faster.
            known = self.known().await?;
        }
        Ok(Verdict::Later(SOON))
    }

    /// The job's record, where it is; as it is by the last claim, which may not be written there yet.
    async fn known(&self) -> Result<Option<Found>, NatsError> {
        let Some(mut known) = self.shared.record(self.id).await? else {
            return Ok(None);
        };
        while !known.record.is_ended() {
            let next = known.record.attempts.saturating_add(1);
            let subject = self.shared.names.claim(self.id, next);
            match log::last(&self.shared.streams.jobs, &subject).await? {
                Some(entry) => known.record = found(entry)?.record,
                None => break,
            }
        }
        Ok(Some(known))
    }

    /// What is to be done with a job of which this is known, and whether nothing is missing in that.
    fn plan(&self, known: Option<Found>, is_known: bool) -> Plan {
        let Some(known) = known else {
            let first = Writing {
                record: self.queued.clone(),
                subject: self.shared.names.run(self.id),
                expected: 0,
            };
            return match is_known {
                true => Plan::Begin(first),
                false => Plan::Write(self.lose(first, "it may have been run and forgotten")),
            };
        };
        let options = &self.shared.options;
        let mut writing = Writing {
            record: known.record,
            subject: known.subject,
            expected: known.sequence,
        };
        let record = &mut writing.record;
        if record.is_ended() {
            return Plan::Leave(Verdict::Done(writing.record));
        }
        let attempts = record.attempts;
        match record.holder {
            None => match record.pause() {
                Duration::ZERO => Plan::Begin(writing),
                pause => Plan::Leave(Verdict::Later(pause)),
            },
            Some(holder) if holder.message.is_some_and(|place| place != self.place) => {
                Plan::Leave(Verdict::Double)
            }
            // Its process runs it, and says until when that is to be believed.
            Some(holder) if holder.until.is_some_and(|until| until > now()) => {
                let left = holder.until.unwrap_or_default().saturating_sub(now());
                let left = Duration::from_millis(left.saturating_add(500));
                Plan::Leave(Verdict::Later(left.min(LONGEST_PAUSE)))
            }
            // Handed out once, and yet somebody has it: the servers have lost count. If that one is
            // gone, its lease will tell.
            Some(holder) if holder.until.is_none() && self.delivered <= 1 => {
                Plan::Leave(Verdict::Later(options.lease))
            }
            // Whoever had it is gone.
            Some(_) if !self.may_rerun || attempts >= options.attempts => {
                Plan::Write(self.lose(writing, "the process that ran it is gone"))
            }
            Some(_) if attempts <= 1 => Plan::Begin(writing),
            Some(_) => {
                let doublings = attempts.saturating_sub(2).min(16);
                let pause = options.lease.saturating_mul(2_u32.pow(doublings));
                record.hand_back(pause.min(LONGEST_PAUSE));
                Plan::Write(writing)
            }
        }
    }

    /// Whether it may have been begun so long ago, before all processes were gone for as long as records are
    /// kept, that the record of it has expired. What must not be begun twice is then not begun.
    async fn may_be_forgotten(&self) -> Result<bool, NatsError> {
        if self.delivered <= 1 || self.may_rerun {
            return Ok(false);
        }
        let since = self.shared.claims_known_since().await?;
        Ok(self.queued.created_at < since)
    }

    fn begin(&self, mut writing: Writing) -> Writing {
        writing.record.claim(self.claim, self.place);
        if writing.expected != 0 {
            let attempts = writing.record.attempts;
            writing.subject = self.shared.names.claim(self.id, attempts);
            writing.expected = 0;
        }
        writing
    }

    /// The end of a job that is not to be run (any more): where there is nothing of it yet, or where ends are.
    fn lose(&self, mut writing: Writing, why: &'static str) -> Writing {
        let attempts = writing.record.attempts;
        tracing::warn!(id = %self.id, attempts, why, "a job is lost");
        if writing.expected != 0 {
            (writing.subject, writing.expected) = (self.shared.names.end(self.id), 0);
        }
        let retain = self.shared.options.retain;
        writing.record.end(Event::Broke(ErrorCode::Lost), retain);
        writing
    }

    /// Writes it, and does not give up before it is known whether that was done: a claim that nobody knows of
    /// looks like one of the dead. Whoever leaves in the meantime drops this.
    async fn put(&self, writing: &mut Writing) -> Result<Option<u64>, NatsError> {
        let Writing {
            record,
            subject,
            expected,
        } = writing;
        let (claim, patience) = (Some(self.claim), Duration::MAX);
        let put = self
            .shared
            .put(subject, record, b"", *expected, claim, patience);
        put.await
    }
}
