//! Decides what to do with a request that the queue has delivered, and claims it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    active::ActiveClaim,
    clock::{as_millis, unix_now},
    error::NatsError,
    jetstream::{JetStream, StoredRecord},
    part::OutputId,
    record::{ClaimHolder, JobRecord},
};
use crate::{ErrorCode, Event};

/// The maximum number of rounds if other processes change the job at the same time.
const MAX_ROUNDS: usize = 4;

/// The maximum delay before a request runs again.
const MAX_DELAY: Duration = Duration::from_secs(600);

/// The tolerated difference between the clocks of processes and servers.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// The extra time after the lease of an accepting process before another one steps in.
const LEASE_MARGIN_MILLIS: u64 = 500;

/// The outcome of a [`ClaimAttempt`].
pub(super) enum ClaimDecision {
    /// The request is claimed; contains its body.
    Run(Bytes),
    /// The job has ended.
    Ended(Box<JobRecord>),
    /// The queue has another message of the request, and another claim holds that one.
    Duplicate,
    /// The queue should deliver the request again after this delay.
    Later(Duration),
}

/// The next step, as derived from the job's record.
enum ClaimPlan {
    /// The job has ended.
    Ended,
    /// Another claim holds another message of the request.
    Duplicate,
    /// Do nothing before this delay has passed.
    Later(Duration),
    /// Claim the request.
    Claim,
    /// End the job as lost, for this reason.
    Lose(&'static str),
    /// Release the dead holder's claim; the request may run again after this delay.
    Release(Duration),
}

/// The attempt to claim a request that the queue has delivered.
///
/// Every decision on which process runs a job creates a subject, which the servers do atomically
/// (see [`JetStream::put_record`]). The first claim creates the job's run record. Each later claim
/// creates a record of its own, with its number in the subject; the run record follows.
pub(super) struct ClaimAttempt<'a> {
    pub(super) jetstream: &'a JetStream,
    /// The claim that this attempt may write.
    pub(super) active: &'a ActiveClaim,
    /// The record that the queued request implies.
    pub(super) queued: &'a JobRecord,
    /// The sequence of the message in the queue.
    pub(super) queue_sequence: u64,
    /// Set if the accepting process has begun to run the request.
    pub(super) begun_here: bool,
    /// The number of deliveries of the message, including this one.
    pub(super) deliveries: i64,
    /// The time of this delivery.
    pub(super) delivered_at: Instant,
}

impl ClaimAttempt<'_> {
    /// Decides about the request, and writes the claim if it should run. `inline_body` is the body
    /// within the message.
    ///
    /// After an error usually nothing was written. A claim that was written nevertheless looks like
    /// that of a dead process.
    pub(super) async fn decide(&self, inline_body: Bytes) -> Result<ClaimDecision, NatsError> {
        let (jetstream, id) = (self.jetstream, self.active.id);
        let body_chunks = self.queued.details.body_chunks;
        let mut body = body_chunks.is_none().then_some(inline_body);
        // A request delivered for the first time usually has no record. Try to claim it without a
        // look, unless that would read a large body in vain.
        let mut known = if self.is_first() && body.is_some() {
            None
        } else {
            jetstream.record_with_claims(id).await?
        };
        let mut is_current = false;
        // Another process was faster in an earlier round, and may be alive.
        let mut lost_race = false;
        // The claim that existed right after the delivery.
        let mut previous_claim = None;
        for _ in 0..MAX_ROUNDS {
            // The holder counts as dead only if its claim is older than this delivery. Long after
            // the delivery, others may have got the request, and then have claims of their own.
            let claim = known.as_ref().and_then(|known| known.record.holder);
            let claim = claim.map(|holder| holder.claim);
            if self.delivered_at.elapsed() < jetstream.options.lease / 2 {
                previous_claim = claim;
            }
            let is_redelivery = self.deliveries > 1 && claim == previous_claim && !lost_race;
            let mut plan = match &known {
                Some(known) => self.plan(known, is_redelivery),
                None if self.may_be_forgotten().await? => {
                    ClaimPlan::Lose("the record of an earlier run may have expired")
                }
                None => ClaimPlan::Claim,
            };
            if let (ClaimPlan::Claim, None, Some(count)) = (&plan, &body, body_chunks) {
                body = self.read_body(count).await?;
                if body.is_none() {
                    plan = self.plan_without_body();
                }
            }
            // An end is final, so it must rest on current data: a new leader may not have applied
            // a requeue yet.
            if matches!(plan, ClaimPlan::Lose(_)) && !is_current {
                jetstream.job_barrier.pass().await?;
                is_current = true;
            } else {
                let body = body.clone().unwrap_or_default();
                if let Some(decision) = self.execute(plan, known, body).await? {
                    return Ok(decision);
                }
                lost_race = true;
            }
            known = jetstream.record_with_claims(id).await?;
        }
        Ok(ClaimDecision::Later(Duration::ZERO))
    }

    /// Reads a body from its chunks. Returns `None` if a chunk is missing.
    async fn read_body(&self, count: u32) -> Result<Option<Bytes>, NatsError> {
        let body = self.jetstream.read_request_body(self.active.id, count);
        Ok(body.await?.map(|body| {
            self.active.state.lock().body_sequences = body.sequences;
            body.bytes
        }))
    }

    /// Returns the next step if a chunk of the body is missing.
    ///
    /// An expired chunk never comes back. Any other reason is unexpected, so a later attempt may
    /// succeed.
    fn plan_without_body(&self) -> ClaimPlan {
        if self.may_have_expired() {
            return ClaimPlan::Lose("the request's body has expired");
        }
        tracing::warn!(id = %self.active.id, "failed to find a request's body, requeued the job");
        ClaimPlan::Later(self.jetstream.options.lease)
    }

    /// Derives the next step from the job's record. `is_redelivery` says that the delivery may be
    /// due to an expired ack deadline of the present holder.
    fn plan(&self, known: &StoredRecord, is_redelivery: bool) -> ClaimPlan {
        let (record, options) = (&known.record, &self.jetstream.options);
        if record.is_ended() {
            return ClaimPlan::Ended;
        }
        let Some(holder) = record.holder else {
            return match record.delay() {
                Duration::ZERO => ClaimPlan::Claim,
                delay => ClaimPlan::Later(delay),
            };
        };
        let sequence = holder.queue_sequence;
        if sequence.is_some_and(|sequence| sequence != self.queue_sequence) {
            return ClaimPlan::Duplicate;
        }
        match holder.lease_until {
            // The accepting process runs it, and its lease is valid.
            Some(until) if until > unix_now() => {
                let millis = until.saturating_sub(unix_now());
                let delay = Duration::from_millis(millis.saturating_add(LEASE_MARGIN_MILLIS));
                return ClaimPlan::Later(delay.min(MAX_DELAY));
            }
            Some(_) => {}
            // The holder may live although the queue delivered the request: the servers may have
            // lost its ack state, or a process that was thought dead may have requeued it. A holder
            // that wrote the record recently is alive. If not, its lease will expire.
            None => {
                let age = unix_now().abs_diff(holder.written_at);
                if !is_redelivery || age < as_millis(options.lease) / 2 {
                    return ClaimPlan::Later(options.lease);
                }
            }
        }
        // The holder is dead.
        match record.deaths() {
            deaths if !self.active.may_rerun || deaths >= options.attempts => {
                ClaimPlan::Lose("the process that ran it died")
            }
            0 | 1 => ClaimPlan::Claim,
            deaths => {
                let doublings = (deaths - 2).min(16);
                let delay = options.lease.saturating_mul(2_u32.pow(doublings));
                ClaimPlan::Release(delay.min(MAX_DELAY))
            }
        }
    }

    /// Executes a plan. Returns `None` if another process has changed the job first.
    async fn execute(
        &self,
        plan: ClaimPlan,
        known: Option<StoredRecord>,
        body: Bytes,
    ) -> Result<Option<ClaimDecision>, NatsError> {
        let (id, names) = (self.active.id, &self.jetstream.names);
        // `run` is the sequence of the run record, 0 if there is none.
        let (mut record, run) = match known {
            Some(known) => (known.record, known.sequence),
            None => (self.queued.clone(), 0),
        };
        // The subject to create: the run record, or a separate one if that exists.
        let subject = |separate: String| {
            if run == 0 { names.run(id) } else { separate }
        };
        Ok(match plan {
            ClaimPlan::Ended => Some(ClaimDecision::Ended(Box::new(record))),
            ClaimPlan::Duplicate => Some(ClaimDecision::Duplicate),
            ClaimPlan::Later(delay) => Some(ClaimDecision::Later(delay)),
            ClaimPlan::Claim => {
                record.claim(self.active.claim, self.queue_sequence);
                let subject = subject(names.claim(id, record.attempts));
                let written = self.put(&subject, &mut record, 0).await?;
                written.map(|sequence| {
                    let run = if run == 0 { sequence } else { run };
                    self.active.set_claimed(record, sequence, run);
                    ClaimDecision::Run(body)
                })
            }
            ClaimPlan::Lose(reason) => {
                let attempts = record.attempts;
                let retain = self.jetstream.options.retain;
                // A request that was never delivered before has not reached its service.
                let is_reached = !self.is_first() || attempts > 0;
                let status = ErrorCode::Lost.status();
                record.is_key_released = !is_reached || !record.details.outcomes.keeps(status);
                if let Some(ClaimHolder { claim, .. }) = record.holder {
                    let output = OutputId { job: id, claim };
                    record.partial = self.jetstream.seal(output, ErrorCode::Lost).await?;
                }
                record.end(Event::NoResponse(ErrorCode::Lost), retain);
                let subject = subject(names.end(id));
                let written = self.put(&subject, &mut record, 0).await?;
                written.map(|_| {
                    tracing::warn!(%id, attempts, reason, "ended a job as lost");
                    ClaimDecision::Ended(Box::new(record))
                })
            }
            ClaimPlan::Release(delay) => {
                record.release(delay);
                let written = self.put(&names.run(id), &mut record, run).await?;
                written.map(|_| ClaimDecision::Later(delay))
            }
        })
    }

    /// Returns `true` if no process can have run the request before.
    fn is_first(&self) -> bool {
        self.deliveries <= 1 && !self.begun_here
    }

    /// Returns `true` if an earlier run's record may have expired, which happens only while all
    /// processes are down. A request that must not repeat then ends as lost.
    async fn may_be_forgotten(&self) -> Result<bool, NatsError> {
        if self.is_first() || self.active.may_rerun {
            return Ok(false);
        }
        let since = self.jetstream.claims_known_since().await?;
        Ok(self.queued.details.created_at < since)
    }

    /// Returns `true` if the chunks of the request's body are old enough to have expired.
    fn may_have_expired(&self) -> bool {
        let max_age = self.jetstream.options.max_queued_for;
        let max_age = max_age.saturating_sub(MAX_CLOCK_SKEW);
        let age = unix_now().saturating_sub(self.queued.details.created_at);
        age >= as_millis(max_age)
    }

    /// Writes a record with retries: a claim that no process knows of would look like that of a
    /// dead process.
    ///
    /// The retries end while everything that other processes may have done meanwhile is still on
    /// record. A worker that shuts down drops this future.
    async fn put(
        &self,
        subject: &str,
        record: &mut JobRecord,
        expected: u64,
    ) -> Result<Option<u64>, NatsError> {
        let (claim, patience) = (Some(self.active.claim), self.remaining()?);
        let written = self
            .jetstream
            .put_record(subject, record, b"", expected, claim, patience)
            .await?;
        self.remaining()?;
        Ok(written)
    }

    /// Returns the time until a write of this attempt comes too late.
    fn remaining(&self) -> Result<Duration, NatsError> {
        let limit = self.jetstream.options.retain / 2;
        let remaining = limit.checked_sub(self.delivered_at.elapsed());
        remaining.ok_or_else(|| NatsError::unavailable("claiming a request took too long"))
    }
}
