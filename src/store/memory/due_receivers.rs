//! The receivers that have pending deliveries in memory.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::store::{ReceiverStanding, SendRoom};

/// A receiver, and the time at which its first delivery is due.
pub(super) type DueReceiver = (SystemTime, Arc<str>);

/// The receivers that have pending deliveries.
///
/// Thousands may wait for a connection that others of their standing hold. A look at the rest skips
/// them.
#[derive(Default)]
pub(super) struct DueReceivers {
    ready: BTreeSet<DueReceiver>,
    waiting_unknown: BTreeSet<DueReceiver>,
    waiting_failing: BTreeSet<DueReceiver>,
}

impl DueReceivers {
    pub(super) fn insert(&mut self, receiver: DueReceiver) {
        self.ready.insert(receiver);
    }

    pub(super) fn remove(&mut self, receiver: &DueReceiver) {
        for standing in [
            ReceiverStanding::Proven,
            ReceiverStanding::Unknown,
            ReceiverStanding::Failing,
        ] {
            self.set(standing).remove(receiver);
        }
    }

    /// Skips a receiver until connections for its standing are free, or it changes.
    pub(super) fn wait(&mut self, standing: ReceiverStanding, receiver: DueReceiver) {
        self.ready.remove(&receiver);
        self.set(standing).insert(receiver);
    }

    /// Skips a receiver no longer if connections for its standing are free. Returns the receiver.
    pub(super) fn resume(&mut self, room: &SendRoom) -> Option<DueReceiver> {
        let standings = [ReceiverStanding::Unknown, ReceiverStanding::Failing];
        let mut free = standings
            .into_iter()
            .filter(|&standing| room.free_for(standing) > 0);
        let receiver = free.find_map(|standing| self.set(standing).pop_first())?;
        self.ready.insert(receiver.clone());
        Some(receiver)
    }

    /// Returns the next receiver that is due and not skipped.
    pub(super) fn next(&self, after: Option<&DueReceiver>, now: SystemTime) -> Option<DueReceiver> {
        let start = after.map_or(Unbounded, Excluded);
        let next = self.ready.range((start, Unbounded)).next();
        next.filter(|&&(at, _)| at <= now).cloned()
    }

    /// Returns `true` if a receiver is due.
    pub(super) fn has_due(&self, now: SystemTime) -> bool {
        let skipped = self.waiting_unknown.len() + self.waiting_failing.len();
        skipped > 0 || self.next(None, now).is_some()
    }

    /// Returns the time at which the next receiver is due that is not due at `now`.
    pub(super) fn next_at(&self, now: SystemTime) -> Option<SystemTime> {
        let after_now = (now + Duration::from_nanos(1), Arc::from(""));
        self.ready.range(after_now..).next().map(|&(at, _)| at)
    }

    fn set(&mut self, standing: ReceiverStanding) -> &mut BTreeSet<DueReceiver> {
        match standing {
            // For these, each free connection will do.
            ReceiverStanding::Proven => &mut self.ready,
            ReceiverStanding::Unknown => &mut self.waiting_unknown,
            ReceiverStanding::Failing => &mut self.waiting_failing,
        }
    }
}
