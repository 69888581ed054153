//! A job that this process has claimed: its lease, its record and its end.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, message::Acker};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    clock::{as_millis, unix_now},
    error::NatsError,
    jetstream::JetStream,
    messages,
    output::{CallOutput, RunningOutput},
    part::{OutputId, OutputStart},
    record::JobRecord,
    report::PendingReport,
    response::ResponseRecord,
    retry::Retry,
};
use crate::{JobId, store::BufferedBody};

/// The time limit for retrying the write of an end: longer than a leader election.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(60);

/// A claim of this process on a job.
pub(super) struct ActiveClaim {
    pub(super) id: JobId,
    /// Identifies this claim among all claims of the job.
    pub(super) claim: u64,
    pub(super) hold: QueueHold,
    pub(super) may_rerun: bool,
    /// Held for a copy or an assignment, never across an await.
    pub(super) state: Mutex<ClaimState>,
    /// Serializes this claim's writes: of two concurrent conditional writes both may succeed, see
    /// [`JetStream::put_record`].
    write_permit: Semaphore,
    /// Canceled once another process has ended the job or taken it over.
    pub(super) lost: CancellationToken,
    /// Held for a look or an assignment, never across an await.
    output: Mutex<ClaimOutput>,
}

/// The output of a call, once any of it was flushed.
#[derive(Default)]
struct ClaimOutput {
    output: Option<Arc<CallOutput>>,
    /// `None` before and after the output is published.
    running: Option<RunningOutput>,
}

/// The message that keeps the queue from delivering the request to another process.
pub(super) enum QueueHold {
    /// The queue delivered the request; its ack deadline is the lease.
    Acker(Arc<Acker>),
    /// This process accepted the request and runs it. The request is in the queue at this sequence;
    /// other processes that get it see the lease in the job's record.
    Sequence(u64),
}

pub(super) struct ClaimState {
    /// The record as last written.
    pub(super) record: JobRecord,
    /// The sequence of the run record; 0 before the first write.
    pub(super) sequence: u64,
    /// The highest sequence at which a write about the job was seen: by another process, or by this
    /// claim besides the run record.
    seen_sequence: u64,
    /// The start of the last successful write of the record. The claim held then, and what other
    /// processes do with the job afterwards stays on record for the retention.
    written_at: Instant,
    pub(super) report: PendingReport,
    /// The sequences of the request body's chunks, if this process has read them.
    pub(super) body_sequences: Vec<u64>,
}

impl ClaimState {
    /// Returns `true` if the run record may differ from `record`: it lacks this claim still, or
    /// another process has overwritten it.
    pub(super) fn is_behind(&self) -> bool {
        self.sequence != 0 && self.seen_sequence > self.sequence
    }
}

impl ActiveClaim {
    /// Creates a claim. `written_at` is when the write of `record` began.
    pub(super) fn new(
        id: JobId,
        claim: u64,
        hold: QueueHold,
        may_rerun: bool,
        record: JobRecord,
        sequence: u64,
        written_at: Instant,
    ) -> Self {
        Self {
            id,
            claim,
            hold,
            may_rerun,
            state: Mutex::new(ClaimState {
                record,
                sequence,
                seen_sequence: 0,
                written_at,
                report: PendingReport::default(),
                body_sequences: Vec::new(),
            }),
            write_permit: Semaphore::new(1),
            lost: CancellationToken::new(),
            output: Mutex::default(),
        }
    }

    pub(super) fn output_id(&self) -> OutputId {
        OutputId {
            job: self.id,
            claim: self.claim,
        }
    }

    /// Starts to publish the output of the call. Returns `None` if it has had an output before.
    pub(super) fn publish(
        &self,
        jetstream: &Arc<JetStream>,
        response: ResponseRecord,
        length: Option<u64>,
        body: impl FnOnce() -> BufferedBody,
    ) -> Option<Arc<CallOutput>> {
        let mut output = self.output.lock();
        if output.output.is_some() {
            return None;
        }
        let start = OutputStart {
            run: self.state.lock().record.attempts,
            length,
            response,
        };
        let (id, lost) = (self.output_id(), self.lost.clone());
        let running = RunningOutput::start(jetstream.clone(), lost, id, start, body());
        output.output = Some(running.output.clone());
        output.running = Some(running);
        output.output.clone()
    }

    /// Takes the output, if it is being published.
    pub(super) fn take_output(&self) -> Option<RunningOutput> {
        self.output.lock().running.take()
    }

    /// Returns the number of published parts of the output, and the time since the first one was.
    pub(super) fn published(&self) -> Option<(u32, Duration)> {
        self.output.lock().output.as_ref()?.published()
    }

    /// Removes the output, unless the job has ended with it. The publisher has ended.
    pub(super) async fn discard_output(
        &self,
        jetstream: &JetStream,
        record: Option<&JobRecord>,
    ) -> Result<(), NatsError> {
        let kept = record.and_then(JobRecord::streamed);
        if kept.is_some_and(|parts| parts.claim == self.claim) {
            return Ok(());
        }
        let count = self.published().map_or(0, |(count, _)| count);
        jetstream.remove_parts(self.output_id(), count, true).await
    }

    /// Extends the ack deadline of the queue's message.
    pub(super) async fn extend_ack_deadline(&self) {
        if let QueueHold::Acker(acker) = &self.hold
            && let Err(error) = acker.ack_with(AckKind::Progress).await
        {
            tracing::warn!(%error, id = %self.id, "failed to renew the lease of a job");
        }
    }

    /// Returns `true` if the record must be written: for a report, before it expires, or before the
    /// lease in it does.
    pub(super) fn needs_write(&self, jetstream: &JetStream) -> bool {
        let state = self.state.lock();
        let age = state.written_at.elapsed();
        !state.report.is_empty()
            || state.is_behind()
            || age > jetstream.refresh_interval()
            || (matches!(self.hold, QueueHold::Sequence(_)) && age > jetstream.options.lease / 4)
    }

    /// Writes pending reports, and renews a lease that is kept in the record.
    pub(super) async fn write_pending(&self, jetstream: &JetStream) -> Result<(), NatsError> {
        let (report, refreshes) = {
            let mut state = self.state.lock();
            let refreshes = state.written_at.elapsed() > jetstream.refresh_interval();
            (std::mem::take(&mut state.report), refreshes)
        };
        let lease = as_millis(jetstream.options.lease);
        let written = self.update_record(jetstream, Duration::ZERO, |record| {
            record.apply(&report);
            if let (QueueHold::Sequence(_), Some(holder)) = (&self.hold, &mut record.holder) {
                holder.lease_until = Some(unix_now().saturating_add(lease));
            }
        });
        match written.await {
            Ok(true) if refreshes => {
                let details = self.state.lock().record.details.clone();
                jetstream.refresh_index(self.id, &details).await
            }
            Ok(_) => Ok(()),
            Err(error) => {
                // Keep the report for the next attempt, below any newer one.
                let mut state = self.state.lock();
                state.report = std::mem::take(&mut state.report).or(report);
                Err(error)
            }
        }
    }

    /// Changes the run record while this claim holds the job.
    ///
    /// Returns `false` if the claim has lost the job.
    pub(super) async fn update_record(
        &self,
        jetstream: &JetStream,
        patience: Duration,
        change: impl Fn(&mut JobRecord),
    ) -> Result<bool, NatsError> {
        let (subject, claim) = (jetstream.names.run(self.id), Some(self.claim));
        let _permit = self.write_permit.acquire().await;
        let mut retry = Retry::within(patience);
        let (mut base, mut expected) = {
            let state = self.state.lock();
            (state.record.clone(), state.sequence)
        };
        loop {
            // Checked in each round: a write may be answered long after the job has expired.
            let Some(remaining) = self.remaining(jetstream) else {
                return Ok(false);
            };
            let patience = patience.min(remaining);
            // This claim has ended or requeued the job before.
            if !base.is_held_by(self.claim) {
                return Ok(false);
            }
            let (mut record, begun) = (base.clone(), Instant::now());
            change(&mut record);
            if let Some(holder) = &mut record.holder {
                holder.written_at = unix_now();
            }
            let written =
                jetstream.put_record(&subject, &mut record, b"", expected, claim, patience);
            if let Some(sequence) = written.await? {
                let mut state = self.state.lock();
                (state.record, state.sequence, state.written_at) = (record, sequence, begun);
                return Ok(true);
            }
            let found = match jetstream.record(self.id).await? {
                Some(found) if found.record.is_ended() => break,
                // An earlier write of this claim, whose acknowledgement was lost.
                Some(found) if found.record.is_held_by(self.claim) => {
                    base = found.record;
                    found.sequence
                }
                // From before this claim: a late write of the previous holder, or a refresh.
                Some(found) if found.record.attempts < base.attempts => {
                    // Followers of the job must see the next revision as newer.
                    base.revision = base.revision.max(found.record.revision) + 1;
                    found.sequence
                }
                Some(_) => break,
                // It cannot have expired yet. A new leader has not applied it, or someone has
                // removed it by hand.
                None => 0,
            };
            if found == expected {
                let error = NatsError::unavailable("the conflicting record is missing");
                retry.wait(error, &subject).await?;
            }
            expected = found;
        }
        self.lost.cancel();
        Ok(false)
    }

    /// Writes the end of the job, with long retries: an end that is not stored is lost.
    ///
    /// Returns `false` if the job has another end or another holder.
    pub(super) async fn write_end(
        &self,
        jetstream: &JetStream,
        body: &[u8],
        change: impl Fn(&mut JobRecord),
    ) -> Result<bool, NatsError> {
        let _permit = self.write_permit.acquire().await;
        let Some(remaining) = self.remaining(jetstream) else {
            return Ok(false);
        };
        let mut record = self.state.lock().record.clone();
        change(&mut record);
        let (subject, claim) = (jetstream.names.end(self.id), Some(self.claim));
        let patience = END_PATIENCE.min(remaining);
        let written = jetstream.put_record(&subject, &mut record, body, 0, claim, patience);
        let is_first = written.await?.is_some();
        if is_first {
            // The record has no holder now, so `update_record` writes nothing any more.
            self.state.lock().record = record;
        } else {
            self.lost.cancel();
        }
        Ok(is_first)
    }

    /// Records that the claim was written at `sequence`, and that the run record is at `run`.
    pub(super) fn set_claimed(&self, record: JobRecord, sequence: u64, run: u64) {
        let mut state = self.state.lock();
        state.seen_sequence = state.seen_sequence.max(sequence);
        (state.record, state.sequence) = (record, run);
    }

    /// Returns how long a write of this claim may take, or `None` if the job is lost.
    ///
    /// That is until the last written record expires. Afterwards another process may have run the
    /// job, and its record may have expired as well.
    fn remaining(&self, jetstream: &JetStream) -> Option<Duration> {
        let age = self.state.lock().written_at.elapsed();
        let remaining = jetstream.options.retain.checked_sub(age);
        if remaining.is_none() {
            self.lost.cancel();
        }
        remaining.filter(|_| !self.lost.is_cancelled())
    }

    /// Notes another process's write about the job.
    ///
    /// A write from before the claim has no effect. The next write of the record finds out what a
    /// later one means.
    pub(super) fn note_write(&self, sequence: u64) {
        let mut state = self.state.lock();
        state.seen_sequence = state.seen_sequence.max(sequence);
    }

    /// Removes the request from the queue.
    pub(super) async fn acknowledge(&self, jetstream: &JetStream) -> Result<(), NatsError> {
        match &self.hold {
            QueueHold::Acker(acker) => acker.ack().await.map_err(NatsError::unavailable),
            QueueHold::Sequence(sequence) => {
                messages::delete(&jetstream.streams.queue, *sequence).await
            }
        }
    }
}
