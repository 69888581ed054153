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
/// Thousands may wait for a connection that others of their standing hold. They are skipped until
/// such a connection is free. Their standing is that of the last look: a live event may have
/// changed it since.
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

    /// Returns the next receiver that is due: the first of those that waited and need not any
    /// longer, and of the ready ones after `last`.
    pub(super) fn next(
        &mut self,
        last: Option<&DueReceiver>,
        now: SystemTime,
        room: &SendRoom,
    ) -> Option<DueReceiver> {
        let start = last.map_or(Unbounded, Excluded);
        let ready = self.ready.range((start, Unbounded)).next().cloned();
        let ready = ready.filter(|&(at, _)| at <= now);
        let standings = [ReceiverStanding::Unknown, ReceiverStanding::Failing];
        let free = standings.map(|standing| {
            let first = self.set(standing).first().cloned();
            first.filter(|_| room.free_for(standing) > 0)
        });
        let Some(waiting) = free.into_iter().flatten().min() else {
            return ready;
        };
        if ready.as_ref().is_some_and(|ready| *ready < waiting) {
            return ready;
        }
        self.remove(&waiting);
        self.ready.insert(waiting.clone());
        Some(waiting)
    }

    /// Returns `true` if a receiver is due.
    pub(super) fn has_due(&self, now: SystemTime) -> bool {
        let skipped = self.waiting_unknown.len() + self.waiting_failing.len();
        let first = self.ready.first();
        skipped > 0 || first.is_some_and(|&(at, _)| at <= now)
    }

    /// Returns the time at which the next receiver is due that is not due at `now`.
    pub(super) fn next_at(&self, now: SystemTime) -> Option<SystemTime> {
        let after_now = (now + Duration::from_nanos(1), Arc::from(""));
        self.ready.range(after_now..).next().map(|&(at, _)| at)
    }

    fn set(&mut self, standing: ReceiverStanding) -> &mut BTreeSet<DueReceiver> {
        match standing {
            // Any free connection serves a proven receiver, so none waits.
            ReceiverStanding::Proven => &mut self.ready,
            ReceiverStanding::Unknown => &mut self.waiting_unknown,
            ReceiverStanding::Failing => &mut self.waiting_failing,
        }
    }
}
