//! The pending deliveries in the order of their due times, without their bodies.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

use crate::{
    JobId,
    store::{
        DELIVERED_RETENTION, Delivery, DeliveryId, DeliveryState, FAILED_RETENTION, OutboxStats,
        SendRoom,
    },
};

/// A position in the order of due times.
type DueKey = (SystemTime, DeliveryId);

/// The pending deliveries of a stream, and the time at which settled ones are removed.
#[derive(Debug, Default)]
pub(super) struct DeliveryIndex {
    pending: HashMap<DeliveryId, PendingDelivery>,
    by_due: BTreeSet<DueKey>,
    by_receiver: HashMap<Arc<str>, BTreeSet<DueKey>>,
    /// The times at which the pending deliveries were recorded.
    by_age: BTreeSet<(SystemTime, DeliveryId)>,
    /// Settled deliveries, by the time of their removal, with their sequences.
    settled: BTreeSet<(SystemTime, u64)>,
    /// The sequence of the newest message that was applied.
    last_sequence: u64,
}

#[derive(Debug)]
struct PendingDelivery {
    sequence: u64,
    /// The time of the next attempt. For a leased delivery, the end of the lease.
    due_at: SystemTime,
    /// The time of the next attempt as the stream has it.
    recorded_due_at: SystemTime,
    created_at: SystemTime,
    receiver: Arc<str>,
}

/// A delivery that was leased in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexLease {
    pub(super) id: DeliveryId,
    pub(super) sequence: u64,
}

impl DeliveryIndex {
    /// Returns the sequence of the newest message that was applied, or 0.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Applies a delivery as it was written at `sequence`. Returns `true` if it is new, pending and
    /// not leased.
    pub(super) fn apply(&mut self, sequence: u64, delivery: &Delivery) -> bool {
        self.last_sequence = self.last_sequence.max(sequence);
        let known = self.pending.get(&delivery.id);
        if known.is_some_and(|known| known.sequence >= sequence) {
            return false;
        }
        self.remove(delivery.id);
        let Some(due_at) = delivery.due_at() else {
            let keep = match delivery.state {
                DeliveryState::Delivered => DELIVERED_RETENTION,
                _ => FAILED_RETENTION,
            };
            let last = delivery.last.as_ref();
            let settled_at = last.map_or(delivery.created_at, |attempt| attempt.at);
            if let Some(expires_at) = settled_at.checked_add(keep) {
                self.settled.insert((expires_at, sequence));
            }
            return false;
        };
        let receiver = match self.by_receiver.get_key_value(delivery.receiver()) {
            Some((receiver, _)) => receiver.clone(),
            None => delivery.receiver().into(),
        };
        let pending = PendingDelivery {
            sequence,
            due_at,
            recorded_due_at: due_at,
            created_at: delivery.created_at,
            receiver,
        };
        self.insert(delivery.id, pending);
        true
    }

    /// Leases deliveries that are due and have room, until `until`.
    pub(super) fn lease(
        &mut self,
        room: &mut SendRoom,
        now: SystemTime,
        until: SystemTime,
    ) -> Vec<IndexLease> {
        // The receiver whose first delivery has waited longest comes first.
        let mut receivers: Vec<_> = self
            .by_receiver
            .iter()
            .filter_map(|(receiver, due)| Some((*due.first()?, receiver.clone())))
            .filter(|((due_at, _), receiver)| *due_at <= now && room.free(receiver) > 0)
            .collect();
        receivers.sort_unstable();
        let mut leases = Vec::new();
        for (_, receiver) in receivers {
            while let Some(id) = self.first_due(&receiver, now) {
                if !room.take(&receiver) {
                    break;
                }
                leases.extend(self.postpone(id, until));
            }
            if room.is_full() {
                break;
            }
        }
        leases
    }

    fn first_due(&self, receiver: &str, now: SystemTime) -> Option<DeliveryId> {
        let (due_at, id) = self.by_receiver.get(receiver)?.first()?;
        (*due_at <= now).then_some(*id)
    }

    /// Returns the time at which the next delivery is due after `now`.
    pub(super) fn next_after(&self, now: SystemTime) -> Option<SystemTime> {
        // No id is greater, so this skips all deliveries that are due now.
        let max = DeliveryId::new(JobId::from_bytes([u8::MAX; 16]), u32::MAX);
        let later = (Bound::Excluded((now, max)), Bound::Unbounded);
        self.by_due.range(later).next().map(|(due_at, _)| *due_at)
    }

    /// Ends a lease, unless the delivery was written since.
    pub(super) fn release(&mut self, lease: IndexLease) {
        let pending = self.pending.get(&lease.id);
        if let Some(pending) = pending.filter(|pending| pending.sequence == lease.sequence) {
            let due_at = pending.recorded_due_at;
            self.postpone(lease.id, due_at);
        }
    }

    /// Ends the lease of a delivery, since no attempt was made.
    pub(super) fn release_unsent(&mut self, id: DeliveryId) {
        if let Some(pending) = self.pending.get(&id) {
            let sequence = pending.sequence;
            self.release(IndexLease { id, sequence });
        }
    }

    /// Removes a delivery that the stream no longer has.
    pub(super) fn forget(&mut self, lease: IndexLease) {
        let pending = self.pending.get(&lease.id);
        if pending.is_some_and(|pending| pending.sequence == lease.sequence) {
            self.remove(lease.id);
        }
    }

    /// Takes the sequence of a settled delivery that need not be kept any more.
    pub(super) fn take_expired(&mut self, now: SystemTime) -> Option<u64> {
        let (expires_at, _) = self.settled.first()?;
        if *expires_at > now {
            return None;
        }
        self.settled.pop_first().map(|(_, sequence)| sequence)
    }

    pub(super) fn stats(&self) -> OutboxStats {
        let oldest = self.by_age.first().map(|(created_at, _)| *created_at);
        OutboxStats::new(self.pending.len() as u64, oldest)
    }

    fn postpone(&mut self, id: DeliveryId, due_at: SystemTime) -> Option<IndexLease> {
        let mut pending = self.remove(id)?;
        let sequence = pending.sequence;
        pending.due_at = due_at;
        self.insert(id, pending);
        Some(IndexLease { id, sequence })
    }

    fn insert(&mut self, id: DeliveryId, pending: PendingDelivery) {
        let key = (pending.due_at, id);
        self.by_due.insert(key);
        self.by_age.insert((pending.created_at, id));
        let of_receiver = self.by_receiver.entry(pending.receiver.clone());
        of_receiver.or_default().insert(key);
        self.pending.insert(id, pending);
    }

    fn remove(&mut self, id: DeliveryId) -> Option<PendingDelivery> {
        let pending = self.pending.remove(&id)?;
        let key = (pending.due_at, id);
        self.by_due.remove(&key);
        self.by_age.remove(&(pending.created_at, id));
        if let Some(due) = self.by_receiver.get_mut(&pending.receiver) {
            due.remove(&key);
            if due.is_empty() {
                self.by_receiver.remove(&pending.receiver);
            }
        }
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Snapshot, Status,
        store::{Attempt, AttemptFailure, CallbackTarget, Settlement},
    };

    const LEASE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    /// Creates a delivery that is due at this time.
    fn delivery(receiver: &str, due_at: SystemTime) -> Delivery {
        let mut job = Snapshot::new(JobId::random(), due_at);
        job.status = Status::Succeeded;
        let url = format!("https://{receiver}/hook");
        let target = CallbackTarget::new(url, ["job.succeeded".to_owned()]);
        job.callbacks = Some(Arc::new([target]));
        Delivery::of_end(&job).pop().expect("one delivery")
    }

    fn room(connections: usize, each: usize) -> SendRoom {
        SendRoom::new(connections, each, LEASE)
    }

    fn lease(index: &mut DeliveryIndex, room: SendRoom, now: SystemTime) -> Vec<DeliveryId> {
        let leases = index.lease(&mut room.clone(), now, now + LEASE);
        leases.into_iter().map(|lease| lease.id).collect()
    }

    #[test]
    fn full_receiver_holds_up_no_other() {
        let mut index = DeliveryIndex::default();
        let now = start();
        let slow: Vec<_> = (0..5)
            .map(|at| delivery("slow", now + SECOND * at))
            .collect();
        let other = delivery("other", now + 9 * SECOND);
        let later = delivery("other", now + 30 * SECOND);
        for (sequence, delivery) in (1..).zip(slow.iter().chain([&other, &later])) {
            assert!(index.apply(sequence, delivery));
        }
        assert_eq!(index.next_after(now), Some(now + SECOND));
        let at = now + 10 * SECOND;
        let leased = lease(&mut index, room(8, 2), at);
        assert_eq!(leased, [slow[0].id, slow[1].id, other.id]);
        assert_eq!(index.next_after(at), Some(now + 30 * SECOND));
        assert_eq!(index.stats().pending, 7);
        assert_eq!(index.stats().oldest, Some(now));
        // The lease ends.
        let leased = lease(&mut index, room(100, 50), at + LEASE);
        assert_eq!(leased.len(), 7);
    }

    #[test]
    fn released_delivery_is_due_as_before() {
        let mut index = DeliveryIndex::default();
        let now = start();
        let due = delivery("one", now);
        index.apply(7, &due);
        let leases = index.lease(&mut room(4, 4), now, now + LEASE);
        let (id, sequence) = (due.id, 7);
        assert_eq!(leases, [IndexLease { id, sequence }]);
        assert_eq!(lease(&mut index, room(4, 4), now), []);
        index.release(leases[0]);
        assert_eq!(lease(&mut index, room(4, 4), now), [id]);
        // Its own write comes back from the stream, and must not end the lease.
        assert!(!index.apply(7, &due));
        assert_eq!(lease(&mut index, room(4, 4), now), []);
        index.release_unsent(id);
        assert_eq!(lease(&mut index, room(4, 4), now), [id]);
        // A lease of an earlier write means nothing.
        index.apply(8, &due);
        assert_eq!(lease(&mut index, room(4, 4), now), [id]);
        index.release(leases[0]);
        index.forget(leases[0]);
        assert_eq!(lease(&mut index, room(4, 4), now), []);
        assert_eq!(index.stats().pending, 1);
    }

    #[test]
    fn settled_delivery_expires() {
        let mut index = DeliveryIndex::default();
        let now = start();
        let mut taken = delivery("one", now);
        let mut given_up = delivery("two", now);
        index.apply(1, &taken);
        index.apply(2, &given_up);
        taken.settle(&Settlement::Delivered(Attempt::answered(now, 204)), now);
        let failed = Attempt::failed(now, AttemptFailure::Connect);
        given_up.settle(&Settlement::Failed(failed), now);
        assert!(!index.apply(3, &taken) && !index.apply(4, &given_up));
        assert_eq!(index.stats(), OutboxStats::default());
        assert_eq!(index.last_sequence(), 4);
        assert!(index.by_due.is_empty() && index.by_receiver.is_empty() && index.by_age.is_empty());
        assert_eq!(index.take_expired(now + DELIVERED_RETENTION - SECOND), None);
        assert_eq!(index.take_expired(now + DELIVERED_RETENTION), Some(3));
        assert_eq!(index.take_expired(now + FAILED_RETENTION - SECOND), None);
        assert_eq!(index.take_expired(now + FAILED_RETENTION), Some(4));
        assert_eq!(index.take_expired(now + 2 * FAILED_RETENTION), None);
    }
}
