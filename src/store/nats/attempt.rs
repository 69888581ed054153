//! Whether a request that was handed out is to be run, and who does.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    NatsError,
    active::ActiveClaim,
    clock::{now, whole_millis},
    jetstream::{JetStream, StoredRecord},
    record::JobRecord,
};
use crate::job::{ErrorCode, Event};

/// How often a job that changes while it is looked at is looked at again.
const ROUNDS: usize = 4;

/// The longest pause before a request is begun again.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// By how much the clocks of processes and servers may differ.
const CLOCKS: Duration = Duration::from_secs(1);

/// What is to be done with a request that was handed out.
pub(super) enum ClaimDecision {
    /// It is claimed; with the request's body.
    Run(Bytes),
    /// Its job has ended.
    Done(Box<JobRecord>),
    /// There is another message of the same request, and somebody has that.
    Double,
    /// It is not for now, and for so long.
    Later(Duration),
}

/// What is to be done, as far as what is known of the job tells.
enum ClaimPlan {
    /// Nothing: its job has ended.
    Done,
    /// Nothing: there is another message of it.
    Double,
    /// Nothing, for so long.
    Later(Duration),
    /// It is to be claimed.
    Begin,
    /// It is not to be run (any more), for this reason.
    Lose(&'static str),
    /// It is to be claimed after this pause.
    Pause(Duration),
}

/// A request that was handed out, and what is known about that.
///
/// Whatever decides who runs it is written where nothing was, in one step of the servers' (see [`JetStream::put`]):
/// the first claim as the record of the job's run, each later one as a record of its own, named by its number. Who
/// has written that has the job; the record of its run, where everybody reads, follows.
pub(super) struct ClaimAttempt<'a> {
    pub(super) shared: &'a JetStream,
    /// The claim that may come of it.
    pub(super) held: &'a ActiveClaim,
    /// The job as it was made of the request.
    pub(super) queued: &'a JobRecord,
    /// Where in the queue it is.
    pub(super) place: u64,
    /// Whether the process that took the request has begun it.
    pub(super) begun_here: bool,
    /// How often it was handed out, this time included.
    pub(super) delivered: i64,
    /// When it was this time.
    pub(super) handed_out: Instant,
}

impl ClaimAttempt<'_> {
    /// Finds out what is to be done with it. Where that fails nothing was written, as a rule; or a claim was that is as
    /// one of the dead.
    pub(super) async fn decide(&self, with_it: Bytes) -> Result<ClaimDecision, NatsError> {
        let (shared, id, parts) = (self.shared, self.held.id, self.queued.parts);
        let mut body = parts.is_none().then_some(with_it);
        // What nobody has begun has no record as a rule: that is tried without a look, unless a large body would be
        // read for it.
        let mut known = match self.is_first() && body.is_some() {
            true => None,
            false => shared.known(id).await?,
        };
        let mut is_up_to_date = false;
        // Whether somebody was faster, who need not be gone.
        let mut is_beaten = false;
        // The claim that there was when it had just been handed out.
        let mut left = None;
        for _ in 0..ROUNDS {
            // Whether it was handed out again since whoever has it is gone, as far as this process can tell: what was
            // handed out long ago may have been handed to others since, who have a claim of their own then.
            let claim = known.as_ref().and_then(|known| known.record.holder);
            let claim = claim.map(|holder| holder.claim);
            if self.handed_out.elapsed() < shared.options.lease / 2 {
                left = claim;
            }
            let is_left = self.delivered > 1 && claim == left && !is_beaten;
            let mut plan = match &known {
                Some(known) => self.plan(known, is_left),
                None if self.may_be_forgotten().await? => {
                    ClaimPlan::Lose("it may have been run and forgotten")
                }
                None => ClaimPlan::Begin,
            };
            if let (ClaimPlan::Begin, None, Some(count)) = (&plan, &body, parts) {
                let read = shared.request_body(id, count).await?;
                body = read.map(|whole| {
                    self.held.state.lock().body = whole.places;
                    whole.bytes
                });
                plan = match body {
                    Some(_) => plan,
                    None if self.may_have_expired() => {
                        ClaimPlan::Lose("the request's body has expired")
                    }
                    None => {
                        tracing::warn!(%id, "a request's body is not there");
                        ClaimPlan::Later(shared.options.lease)
                    }
                };
            }
            // An end holds, whatever it was decided on; and who has just become the leader may not know yet that the
            // job was handed back.
            if matches!(plan, ClaimPlan::Lose(_)) && !is_up_to_date {
                shared.barrier.pass().await?;
                is_up_to_date = true;
            } else {
                let body = body.clone().unwrap_or_default();
                if let Some(verdict) = self.carry_out(plan, known, body).await? {
                    return Ok(verdict);
                }
                is_beaten = true;
            }
            known = shared.known(id).await?;
        }
        Ok(ClaimDecision::Later(Duration::ZERO))
    }

    /// What is to be done with a job of which this is known; and whether whoever had it is gone.
    fn plan(&self, known: &StoredRecord, is_left: bool) -> ClaimPlan {
        let (record, options) = (&known.record, &self.shared.options);
        if record.is_ended() {
            return ClaimPlan::Done;
        }
        let Some(holder) = record.holder else {
            return match record.pause() {
                Duration::ZERO => ClaimPlan::Begin,
                pause => ClaimPlan::Later(pause),
            };
        };
        if holder.message.is_some_and(|place| place != self.place) {
            return ClaimPlan::Double;
        }
        match holder.until {
            // Its process runs it, and says until when that is to be believed.
            Some(until) if until > now() => {
                let left = until.saturating_sub(now()).saturating_add(500);
                let left = Duration::from_millis(left).min(LONGEST_PAUSE);
                return ClaimPlan::Later(left);
            }
            Some(_) => {}
            // It was handed out for another reason: the servers have lost count, or somebody has given it back who was
            // thought dead. Who has written a moment ago lives. If whoever has it is gone, its lease will tell.
            None => {
                let age = now().abs_diff(holder.since);
                if !is_left || age < whole_millis(options.lease) / 2 {
                    return ClaimPlan::Later(options.lease);
                }
            }
        }
        // Whoever had it is gone.
        match record.deaths() {
            deaths if !self.held.may_rerun || deaths >= options.attempts => {
                ClaimPlan::Lose("the process that ran it is gone")
            }
            0 | 1 => ClaimPlan::Begin,
            deaths => {
                let doublings = (deaths - 2).min(16);
                let pause = options.lease.saturating_mul(2_u32.pow(doublings));
                ClaimPlan::Pause(pause.min(LONGEST_PAUSE))
            }
        }
    }

    /// Does what is planned for a job of which this is known. `None`: somebody was faster.
    async fn carry_out(
        &self,
        plan: ClaimPlan,
        known: Option<StoredRecord>,
        body: Bytes,
    ) -> Result<Option<ClaimDecision>, NatsError> {
        let (id, names) = (self.held.id, &self.shared.names);
        // Where the record of its run is; 0 where there is none.
        let (mut record, run) = match known {
            Some(known) => (known.record, known.sequence),
            None => (self.queued.clone(), 0),
        };
        // What decides is written where nothing was: in place of the run, or else beside it.
        let place = |beside: String| match run {
            0 => names.run(id),
            _ => beside,
        };
        Ok(match plan {
            ClaimPlan::Done => Some(ClaimDecision::Done(Box::new(record))),
            ClaimPlan::Double => Some(ClaimDecision::Double),
            ClaimPlan::Later(pause) => Some(ClaimDecision::Later(pause)),
            ClaimPlan::Begin => {
                record.claim(self.held.claim, self.place);
                let place = place(names.claim(id, record.attempts));
                let written = self.put(&place, &mut record, 0).await?;
                written.map(|sequence| {
                    let run = if run == 0 { sequence } else { run };
                    self.held.took(record, sequence, run);
                    ClaimDecision::Run(body)
                })
            }
            ClaimPlan::Lose(why) => {
                let attempts = record.attempts;
                record.end(Event::Broke(ErrorCode::Lost), self.shared.options.retain);
                let written = self.put(&place(names.end(id)), &mut record, 0).await?;
                written.map(|_| {
                    tracing::warn!(%id, attempts, why, "a job is lost");
                    ClaimDecision::Done(Box::new(record))
                })
            }
            ClaimPlan::Pause(pause) => {
                record.let_go(pause);
                let written = self.put(&names.run(id), &mut record, run).await?;
                written.map(|_| ClaimDecision::Later(pause))
            }
        })
    }

    /// Whether nobody can have begun it before.
    fn is_first(&self) -> bool {
        self.delivered <= 1 && !self.begun_here
    }

    /// Whether it may have been begun so long ago, before all processes were gone for as long as records are
    /// kept, that the record of it has expired. What must not be begun twice is then not begun.
    async fn may_be_forgotten(&self) -> Result<bool, NatsError> {
        if self.is_first() || self.held.may_rerun {
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

    /// Writes it, and finds out whether that was done: a claim that nobody knows of looks like one of the dead. But
    /// for no longer than is certain that what others have made of the job meanwhile is still known. Whoever leaves in
    /// the meantime drops this.
    async fn put(
        &self,
        subject: &str,
        record: &mut JobRecord,
        expected: u64,
    ) -> Result<Option<u64>, NatsError> {
        let (claim, patience) = (Some(self.held.claim), self.left()?);
        let put = self
            .shared
            .put(subject, record, b"", expected, claim, patience);
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
