//! Whether a request that was handed out is to be run, and who does.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    NatsError,
    record::{Record, now, whole_millis},
    shared::{Found, Shared},
};
use crate::job::{ErrorCode, Event, JobId};

/// How often a job that changes while it is looked at is looked at again.
const ROUNDS: usize = 4;

/// The longest pause before a request is begun again.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// By how much the clocks of processes and servers may differ.
const CLOCKS: Duration = Duration::from_secs(1);

/// What is to be done with a request that was handed out.
pub(super) enum Verdict {
    Run(Claimed, Bytes),
    /// Its job has ended.
    Done(Record),
    /// There is another message of the same request, and somebody has that.
    Double,
    /// It is not for now, and for so long.
    Later(Duration),
}

/// A claim that was written.
pub(super) struct Claimed {
    pub(super) record: Record,
    /// Where the record of the job's run is.
    pub(super) run: u64,
    /// Whether it says so there.
    pub(super) is_there: bool,
}

/// What is to be done, as far as what is known of the job tells.
enum Plan {
    Leave(Verdict),
    /// It is to be claimed, as this.
    Begin(Writing),
    /// It is not to be run (any more), for this reason.
    Lose(Writing, &'static str),
    Write(Writing),
}

/// A record that is to be written, and over what.
struct Writing {
    record: Record,
    subject: String,
    expected: u64,
}

/// A request that was handed out, and what is known about that.
///
/// Whatever decides who runs it is written where nothing was, in one step of the servers' (see [`Shared::put`]):
/// the first claim as the record of the job's run, each later one as a record of its own, named by how many there
/// were before. Who has written that has the job; the record of its run, where everybody reads, follows.
pub(super) struct Attempt<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: JobId,
    /// The job as it was made of the request.
    pub(super) queued: &'a Record,
    pub(super) claim: u64,
    /// Where in the queue it is.
    pub(super) place: u64,
    pub(super) may_rerun: bool,
    /// Whether the process that took the request has begun it.
    pub(super) begun_here: bool,
    /// How often it was handed out, this time included.
    pub(super) delivered: i64,
    /// When it was this time.
    pub(super) handed_out: Instant,
}

impl Attempt<'_> {
    /// Finds out what is to be done with it. Where that fails nothing was written, as a rule; or a claim was that is as
    /// one of the dead.
    pub(super) async fn decide(&self, with_it: Bytes) -> Result<Verdict, NatsError> {
        let parts = self.queued.parts;
        let mut body = parts.is_none().then_some(with_it);
        // What nobody has begun has no record as a rule: that is tried without a look, unless a large body would be
        // read for it.
        let mut known = match self.is_first() && body.is_some() {
            true => None,
            false => self.shared.known(self.id).await?,
        };
        let mut is_up_to_date = false;
        // Whether it was handed out again since whoever had it is gone, as far as this process can tell: what was
        // handed out long ago may have been handed to others since.
        let mut is_left =
            self.delivered > 1 && self.handed_out.elapsed() < self.shared.options.lease / 2;
        for _ in 0..ROUNDS {
            let is_known = known.is_some() || !self.may_be_forgotten().await?;
            let run = known.as_ref().map(|known| known.sequence);
            let mut writing = match self.plan(known, is_known, is_left) {
                Plan::Leave(verdict) => return Ok(verdict),
                Plan::Write(writing) => writing,
                // An end holds, whatever it was decided on; and who has just become the leader may not know yet that
                // the job was handed back.
                Plan::Lose(..) if !is_up_to_date => {
                    self.shared.barrier.pass().await?;
                    is_up_to_date = true;
                    known = self.shared.known(self.id).await?;
                    continue;
                }
                Plan::Lose(writing, why) => self.lose(writing, why),
                Plan::Begin(writing) => {
                    if let (None, Some(count)) = (&body, parts) {
                        body = self.shared.request_body(self.id, count).await?;
                    }
                    match body {
                        Some(_) => self.begin(writing),
                        None if self.may_have_expired() => {
                            self.lose(writing, "the request's body has expired")
                        }
                        None => {
                            tracing::warn!(id = %self.id, "a request's body is not there");
                            return Ok(Verdict::Later(self.shared.options.lease));
                        }
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
            // Somebody was faster, who need not be gone.
            is_left = false;
            known = self.shared.known(self.id).await?;
        }
        Ok(Verdict::Later(Duration::ZERO))
    }

    /// What is to be done with a job of which this is known, and whether nothing is missing in that; and whether
    /// whoever had it is gone.
    fn plan(&self, known: Option<Found>, is_known: bool, is_left: bool) -> Plan {
        let Some(known) = known else {
            let first = Writing {
                record: self.queued.clone(),
                subject: self.shared.names.run(self.id),
                expected: 0,
            };
            return match is_known {
                true => Plan::Begin(first),
                false => Plan::Lose(first, "it may have been run and forgotten"),
            };
        };
        let options = &self.shared.options;
        // Whoever has it has written a moment ago, and its lease cannot have ended since.
        let is_fresh = now().abs_diff(known.written) < whole_millis(options.lease) / 2;
        let mut writing = Writing {
            record: known.record,
            subject: known.subject,
            expected: known.sequence,
        };
        let record = &mut writing.record;
        if record.is_ended() {
            return Plan::Leave(Verdict::Done(writing.record));
        }
        let deaths = record.deaths();
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
            // It was handed out for another reason: the servers have lost count, or somebody has given it back who
            // was thought dead. If whoever has it is gone, its lease will tell.
            Some(holder) if holder.until.is_none() && (is_fresh || !is_left) => {
                Plan::Leave(Verdict::Later(options.lease))
            }
            // Whoever had it is gone.
            Some(_) if !self.may_rerun || deaths >= options.attempts => {
                Plan::Lose(writing, "the process that ran it is gone")
            }
            Some(_) if deaths <= 1 => Plan::Begin(writing),
            Some(_) => {
                let doublings = deaths.saturating_sub(2).min(16);
                let pause = options.lease.saturating_mul(2_u32.pow(doublings));
                record.let_go(pause.min(LONGEST_PAUSE));
                Plan::Write(writing)
            }
        }
    }

    /// Whether nobody can have begun it before.
    fn is_first(&self) -> bool {
        self.delivered <= 1 && !self.begun_here
    }

    /// Whether it may have been begun so long ago, before all processes were gone for as long as records are
    /// kept, that the record of it has expired. What must not be begun twice is then not begun.
    async fn may_be_forgotten(&self) -> Result<bool, NatsError> {
        if self.is_first() || self.may_rerun {
            return Ok(false);
        }
        let since = self.shared.claims_known_since().await?;
        Ok(self.queued.created_at < since)
    }

    /// Whether the request's body, where it is in parts, is older than those are kept.
    fn may_have_expired(&self) -> bool {
        let kept = self.shared.options.max_queued_for.saturating_sub(CLOCKS);
        let age = now().saturating_sub(self.queued.created_at);
        age >= whole_millis(kept)
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

    /// Writes it, and finds out whether that was done: a claim that nobody knows of looks like one of the dead. But
    /// for no longer than is certain that what others have made of the job meanwhile is still known. Whoever leaves in
    /// the meantime drops this.
    async fn put(&self, writing: &mut Writing) -> Result<Option<u64>, NatsError> {
        let Writing {
            record,
            subject,
            expected,
        } = writing;
        let (claim, patience) = (Some(self.claim), self.left()?);
        let put = self
            .shared
            .put(subject, record, b"", *expected, claim, patience);
        let put = put.await?;
        self.left()?;
        Ok(put)
    }

    /// For how long what is written counts.
    fn left(&self) -> Result<Duration, NatsError> {
        let whole = self.shared.options.retain / 2;
        let left = whole.checked_sub(self.handed_out.elapsed());
        left.ok_or_else(|| NatsError::unavailable("it took too long to claim a request"))
    }
}
