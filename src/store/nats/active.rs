use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::jetstream::{AckKind, message::Acker};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    NatsError,
    clock::{now, whole_millis},
    jetstream::JetStream,
    messages::{self, Retry},
    record::{JobRecord, PendingReport},
};
use crate::job::JobId;

/// For how long an end is tried to be stored: longer than a cluster takes to find a new leader.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The right to end a job in JetStream, as long as nobody has taken it away.
///
/// While it is there, signs of life go out. Dropped before the job has ended, they cease; when the
/// lease is over the request is handed to another process.
pub struct NatsClaim {
    shared: Arc<JetStream>,
    pub(super) held: Arc<ActiveClaim>,
    /// ActiveClaim for one poll.
    ended: Mutex<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// A claimed job.
pub(super) struct ActiveClaim {
    pub(super) id: JobId,
    /// SubjectNames this claim among all of the job's.
    pub(super) claim: u64,
    pub(super) delivery: Delivery,
    pub(super) may_rerun: bool,
    /// ActiveClaim for a copy or an assignment, never across an await.
    pub(super) state: Mutex<ClaimState>,
    /// One write of this claim at a time: of two at a time both might go through, see [`JetStream::put`].
    writing: Semaphore,
    /// Somebody else has ended the job, or taken it over.
    pub(super) ended: CancellationToken,
}

/// How the request is kept from being handed to others.
pub(super) enum Delivery {
    /// It was taken from the queue.
    Taken(Arc<Acker>),
    /// It is in the queue under this sequence, and whoever is handed it sees that it is held.
    Here(u64),
}

pub(super) struct ClaimState {
    /// The record that was written last, and where.
    pub(super) record: JobRecord,
    pub(super) sequence: u64,
    /// Where the job was written of last, as far as was heard: by somebody else, or by this claim beside the record of
    /// its run.
    heard: u64,
    /// When the last write of the record began: the job was this claim's, and what others make of it after that is known
    /// for as long as records are kept.
    written: Instant,
    /// What is not written yet.
    pub(super) told: PendingReport,
    /// Where the parts of the request's body are, that were read.
    pub(super) body: Vec<u64>,
}

impl ClaimState {
    /// Whether the record that others read may not be this one: not yet, or somebody has written over it.
    pub(super) fn is_behind(&self) -> bool {
        self.sequence != 0 && self.heard > self.sequence
    }
}

impl NatsClaim {
    pub(super) fn new(shared: &Arc<JetStream>, held: ActiveClaim) -> Self {
        let held = Arc::new(held);
        let place = (held.id, held.claim);
        shared.active.lock().insert(place, held.clone());
        Self {
            shared: shared.clone(),
            ended: Mutex::new(Box::pin(held.ended.clone().cancelled_owned())),
            held,
        }
    }

    /// Ready when the job has been ended by somebody else.
    pub(super) fn poll_canceled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.ended.lock().as_mut().poll(cx)
    }
}

impl Drop for NatsClaim {
    fn drop(&mut self) {
        let place = (self.held.id, self.held.claim);
        self.shared.active.lock().remove(&place);
    }
}

impl fmt::Debug for NatsClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsClaim").field(&self.held.id).finish()
    }
}

impl ActiveClaim {
    pub(super) fn new(
        id: JobId,
        claim: u64,
        delivery: Delivery,
        may_rerun: bool,
        record: JobRecord,
        sequence: u64,
        written: Instant,
    ) -> Self {
        Self {
            id,
            claim,
            delivery,
            may_rerun,
            state: Mutex::new(ClaimState {
                record,
                sequence,
                heard: 0,
                written,
                told: PendingReport::default(),
                body: Vec::new(),
            }),
            writing: Semaphore::new(1),
            ended: CancellationToken::new(),
        }
    }

    /// Tells the queue that it is being worked on.
    pub(super) async fn beat(&self) {
        if let Delivery::Taken(acker) = &self.delivery
            && let Err(error) = acker.ack_with(AckKind::Progress).await
        {
            tracing::warn!(%error, id = %self.id, "no sign of life sent");
        }
    }

    /// Whether there is something to be written, be it that the record would expire or the lease end.
    pub(super) fn is_due(&self, shared: &JetStream) -> bool {
        let state = self.state.lock();
        !state.told.is_empty()
            || state.is_behind()
            || state.written.elapsed() > shared.quarter()
            || (matches!(self.delivery, Delivery::Here(_))
                && state.written.elapsed() > shared.options.lease / 4)
    }

    /// Writes what is not written yet, and with it that the job is alive.
    pub(super) async fn keep(&self, shared: &JetStream) -> Result<(), NatsError> {
        let (told, renews) = {
            let mut state = self.state.lock();
            let renews = state.written.elapsed() > shared.quarter();
            (std::mem::take(&mut state.told), renews)
        };
        let lease = whole_millis(shared.options.lease);
        let patience = Duration::ZERO;
        let is_ours = self
            .rewrite(shared, patience, |record| {
                record.tell(&told);
                if let (Delivery::Here(_), Some(holder)) = (&self.delivery, &mut record.holder) {
                    holder.until = Some(now().saturating_add(lease));
                }
            })
            .await;
        match is_ours {
            Ok(true) if renews => {
                let record = self.state.lock().record.clone();
                shared.renew(self.id, &record).await
            }
            Ok(_) => Ok(()),
            Err(error) => {
                // For the next time, unless there is something newer by then.
                let mut state = self.state.lock();
                state.told = std::mem::take(&mut state.told).or(told);
                Err(error)
            }
        }
    }

    /// Changes the record as long as it is this claim's. `false`: it is not any more.
    pub(super) async fn rewrite(
        &self,
        shared: &JetStream,
        patience: Duration,
        change: impl Fn(&mut JobRecord),
    ) -> Result<bool, NatsError> {
        let (subject, claim) = (shared.names.run(self.id), Some(self.claim));
        let _turn = self.writing.acquire().await;
        let Some(left) = self.left(shared) else {
            return Ok(false);
        };
        let patience = patience.min(left);
        let mut repeating = Retry::until(patience);
        let (mut base, mut expected) = {
            let state = self.state.lock();
            (state.record.clone(), state.sequence)
        };
        loop {
            // It has ended or was handed back, by this claim.
            if !base.is_held_by(self.claim) {
                return Ok(false);
            }
            let (mut record, begun) = (base.clone(), Instant::now());
            change(&mut record);
            if let Some(holder) = &mut record.holder {
                holder.since = now();
            }
            let put = shared.put(&subject, &mut record, b"", expected, claim, patience);
            if let Some(sequence) = put.await? {
                let mut state = self.state.lock();
                (state.record, state.sequence, state.written) = (record, sequence, begun);
                return Ok(true);
            }
            let found = match shared.record(self.id).await? {
                Some(found) if found.record.is_ended() => break,
                // An earlier write of this claim, whose answer was lost.
                Some(found) if found.record.is_held_by(self.claim) => {
                    base = found.record;
                    found.sequence
                }
                // From before this claim: what whoever had the job wrote late, or what kept it from expiring.
                Some(found) if found.record.attempts < base.attempts => {
                    // Who follows the job is to see what comes next as newer.
                    base.revision = base.revision.max(found.record.revision) + 1;
                    found.sequence
                }
                Some(_) => break,
                // It cannot have expired yet: a new leader does not know of it, or somebody has removed it.
                None => 0,
            };
            if found == expected {
                let error = NatsError::unavailable("what was in the way is not there");
                repeating.after(error, &subject).await?;
            }
            expected = found;
        }
        self.ended.cancel();
        Ok(false)
    }

    /// Ends the job, unless somebody else has; tried for as long as it is worth it, since what is not
    /// stored is lost. `false`: it has another end, or another claim.
    pub(super) async fn end(
        &self,
        shared: &JetStream,
        body: &[u8],
        change: impl Fn(&mut JobRecord),
    ) -> Result<bool, NatsError> {
        let _turn = self.writing.acquire().await;
        let Some(left) = self.left(shared) else {
            return Ok(false);
        };
        let mut record = self.state.lock().record.clone();
        change(&mut record);
        let (subject, claim) = (shared.names.end(self.id), Some(self.claim));
        let patience = PATIENCE.min(left);
        let put = shared.put(&subject, &mut record, body, 0, claim, patience);
        let is_first = put.await?.is_some();
        match is_first {
            // From here on nothing is written of its run.
            true => self.state.lock().record = record,
            false => self.ended.cancel(),
        }
        Ok(is_first)
    }

    /// The claim is written in this place, and the record of the job's run is in that.
    pub(super) fn took(&self, record: JobRecord, sequence: u64, run: u64) {
        let mut state = self.state.lock();
        state.heard = state.heard.max(sequence);
        (state.record, state.sequence) = (record, run);
    }

    /// For how long what this claim writes counts: as long as the record that it wrote last is kept. After that others
    /// may have had the job, and that may be forgotten. `None`: it counts no more, or somebody else has the job.
    fn left(&self, shared: &JetStream) -> Option<Duration> {
        let age = self.state.lock().written.elapsed();
        let left = shared.options.retain.checked_sub(age);
        if left.is_none() {
            self.ended.cancel();
        }
        left.filter(|_| !self.ended.is_cancelled())
    }

    /// Somebody else has written at this place. What was there before this claim came does not count; what that
    /// makes of the claim is found out when its record is written next.
    pub(super) fn hear(&self, sequence: u64) {
        let mut state = self.state.lock();
        state.heard = state.heard.max(sequence);
    }

    /// Lets the queue forget the request.
    pub(super) async fn acknowledge(&self, shared: &JetStream) -> Result<(), NatsError> {
        match &self.delivery {
            Delivery::Taken(acker) => {
                let acknowledged = acker.ack().await;
                acknowledged.map_err(NatsError::unavailable)
            }
            Delivery::Here(sequence) => messages::delete(&shared.streams.queue, *sequence).await,
        }
    }
}
