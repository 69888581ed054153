//! The deliveries in memory, and their indexes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

use super::due_receivers::{DueReceiver, DueReceivers};
use crate::{
    job::JobId,
    limit::Charge,
    store::{
        DELIVERED_RETENTION, Delivery, DeliveryCursor, DeliveryFilter, DeliveryId, DeliveryPage,
        DeliveryState, DueDeliveries, FAILED_RETENTION, OutboxStats, SendRoom,
    },
};

/// The bytes of a delivery besides its texts: the delivery, and its entries in indexes.
const DELIVERY_BYTES: usize = 512;

/// The deliveries in memory, and their indexes.
#[derive(Default)]
pub(super) struct OutboxState {
    deliveries: BTreeMap<DeliveryId, ChargedDelivery>,
    /// The pending deliveries of each receiver, by the time at which they are due.
    due: HashMap<Arc<str>, BTreeSet<(SystemTime, DeliveryId)>>,
    receivers: DueReceivers,
    /// The pending deliveries, from the oldest on.
    pending: BTreeSet<DeliveryCursor>,
    /// The settled deliveries, by the time at which they expire.
    settled: BTreeSet<(SystemTime, DeliveryId)>,
    bytes: usize,
}

/// A delivery in memory.
pub(super) struct ChargedDelivery {
    delivery: Delivery,
    /// The time at which a pending delivery is due or its lease ends, or at which a settled one
    /// expires.
    at: SystemTime,
    /// Absent if the budget had no room.
    charge: Option<Charge>,
}

impl ChargedDelivery {
    pub(super) fn new(delivery: Delivery, charge: Option<Charge>) -> Self {
        Self {
            // The first attempt is due at once, even if the clock was set back.
            at: delivery.created_at.min(SystemTime::now()),
            delivery,
            charge,
        }
    }

    /// Returns the delivery if it is pending.
    pub(super) fn pending(&self) -> Option<&Delivery> {
        Some(&self.delivery).filter(|delivery| delivery.due_at().is_some())
    }

    /// Returns the bytes that a delivery takes.
    pub(super) fn price(delivery: &Delivery) -> usize {
        DELIVERY_BYTES + delivery.url.len() + delivery.body.len()
    }

    fn bytes(&self) -> usize {
        Self::price(&self.delivery)
    }
}

impl OutboxState {
    pub(super) fn insert(&mut self, stored: ChargedDelivery) {
        let (id, at) = (stored.delivery.id, stored.at);
        if stored.delivery.due_at().is_some() {
            let receiver = stored.delivery.receiver();
            self.change_due(receiver, |due| due.insert((at, id)));
            self.pending.insert(DeliveryCursor::of(&stored.delivery));
        } else {
            self.settled.insert((at, id));
        }
        self.bytes += stored.bytes();
        self.deliveries.insert(id, stored);
    }

    fn remove(&mut self, id: DeliveryId) -> Option<ChargedDelivery> {
        let stored = self.deliveries.remove(&id)?;
        let receiver = stored.delivery.receiver();
        self.change_due(receiver, |due| due.remove(&(stored.at, id)));
        self.pending.remove(&DeliveryCursor::of(&stored.delivery));
        self.settled.remove(&(stored.at, id));
        self.bytes -= stored.bytes();
        Some(stored)
    }

    /// Changes the deliveries that are due for a receiver, and its place among the others.
    fn change_due(
        &mut self,
        receiver: &str,
        change: impl FnOnce(&mut BTreeSet<(SystemTime, DeliveryId)>) -> bool,
    ) {
        let (name, mut due) = match self.due.remove_entry(receiver) {
            Some((name, due)) => (name, due),
            None => (receiver.into(), BTreeSet::new()),
        };
        let first = |due: &BTreeSet<_>| due.first().map(|&(at, _)| (at, name.clone()));
        if let Some(before) = first(&due) {
            self.receivers.remove(&before);
        }
        change(&mut due);
        // It is skipped no longer: an attempt that has ended may have changed its standing.
        if let Some(after) = first(&due) {
            self.receivers.insert(after);
        }
        if !due.is_empty() {
            self.due.insert(name, due);
        }
    }

    /// Removes the oldest deliveries until `bytes` more are within `max_bytes`: first those that
    /// are settled, then the pending ones.
    pub(super) fn make_room(&mut self, bytes: usize, max_bytes: usize) -> Vec<ChargedDelivery> {
        let mut removed = Vec::new();
        while self.bytes + bytes > max_bytes {
            let settled = self.settled.first().map(|&(_, id)| id);
            let Some(oldest) = settled.or_else(|| Some(self.pending.first()?.id)) else {
                break;
            };
            removed.extend(self.remove(oldest));
        }
        removed
    }

    /// Removes the settled deliveries that have expired.
    pub(super) fn expire(&mut self, now: SystemTime) -> Vec<ChargedDelivery> {
        let mut expired = Vec::new();
        while let Some(&(at, id)) = self.settled.first()
            && at <= now
        {
            expired.extend(self.remove(id));
        }
        expired
    }

    /// Changes a delivery, if there is one. Returns the charge of a body that it no longer has.
    pub(super) fn change(
        &mut self,
        id: DeliveryId,
        change: impl FnOnce(&mut Delivery),
    ) -> Option<Charge> {
        let mut stored = self.remove(id)?;
        let before = stored.delivery.state;
        change(&mut stored.delivery);
        let bytes = stored.bytes();
        let charge = stored.charge.as_mut();
        let excess = charge.and_then(|charge| {
            let excess = charge.bytes().saturating_sub(bytes);
            (excess > 0).then(|| charge.split(excess))
        });
        let state = stored.delivery.state;
        if state != before {
            stored.at = match state {
                DeliveryState::Pending(at) => at,
                DeliveryState::Delivered => SystemTime::now() + DELIVERED_RETENTION,
                DeliveryState::Failed => SystemTime::now() + FAILED_RETENTION,
            };
        }
        self.insert(stored);
        excess
    }

    /// Leases the deliveries that are due at `now` and have room.
    pub(super) fn take(&mut self, mut room: SendRoom, now: SystemTime) -> DueDeliveries {
        let mut leased = Vec::new();
        // In the order of their earliest deliveries.
        let mut last = None;
        while !room.is_full()
            && let Some(receiver) = self.receivers.next(last.as_ref(), now, &room)
        {
            self.take_from(&receiver, now, &mut room, &mut leased);
            last = last.max(Some(receiver));
        }
        // Of a receiver without room, only the first delivery counts.
        let next_at = self.receivers.next_at(now);
        DueDeliveries::new(leased, next_at).with_waiting(self.receivers.has_due(now))
    }

    /// Leases the deliveries to a receiver that are due and have room.
    fn take_from(
        &mut self,
        (_, receiver): &DueReceiver,
        now: SystemTime,
        room: &mut SendRoom,
        leased: &mut Vec<Delivery>,
    ) {
        let due = self.due.get(receiver).into_iter().flatten();
        let due = due.take_while(|&&(at, _)| at <= now);
        let due: Vec<_> = due.take(room.free(receiver)).map(|&(_, id)| id).collect();
        let until = now + room.lease();
        for id in due {
            room.take(receiver);
            leased.extend(self.lease(id, until));
        }
        let first = self.due.get(receiver).and_then(|due| due.first());
        if let Some(&(at, _)) = first.filter(|&&(at, _)| at <= now)
            && let Some(standing) = room.lacking(receiver)
        {
            self.receivers.wait(standing, (at, receiver.clone()));
        }
    }

    fn lease(&mut self, id: DeliveryId, until: SystemTime) -> Option<Delivery> {
        let mut stored = self.remove(id)?;
        let delivery = stored.delivery.clone();
        stored.at = until;
        self.insert(stored);
        Some(delivery)
    }

    pub(super) fn list(&self, filter: &DeliveryFilter) -> DeliveryPage {
        let all = self.deliveries.values().map(|stored| &stored.delivery);
        let mut found: Vec<&Delivery> = all
            .filter(|delivery| {
                let is_after = |cursor| DeliveryCursor::of(delivery) < cursor;
                filter.matches(delivery) && filter.get_after().is_none_or(is_after)
            })
            .collect();
        found.sort_unstable_by_key(|delivery| Reverse(DeliveryCursor::of(delivery)));
        let has_more = found.len() > filter.get_limit();
        found.truncate(filter.get_limit());
        let found = found.into_iter().map(without_body).collect();
        DeliveryPage::new(found, has_more)
    }

    pub(super) fn of_job(&self, job: JobId) -> Vec<Delivery> {
        let ids = DeliveryId::new(job, 0)..=DeliveryId::new(job, u32::MAX);
        let found = self.deliveries.range(ids);
        found
            .map(|(_, stored)| without_body(&stored.delivery))
            .collect()
    }

    pub(super) fn stats(&self) -> OutboxStats {
        OutboxStats {
            pending: self.pending.len() as u64,
            oldest: self.pending.first().map(|first| first.created_at),
        }
    }
}

fn without_body(delivery: &Delivery) -> Delivery {
    Delivery {
        body: Bytes::new(),
        ..delivery.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        job::{CallbackTarget, Snapshot, Status},
        store::{Attempt, ReceiverRoom, ReceiverStanding, Settlement},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// Adds a delivery for each receiver, the first one due first.
    fn outbox(receivers: &[String], now: SystemTime) -> OutboxState {
        let mut state = OutboxState::default();
        for (later, receiver) in (0..).zip(receivers) {
            let mut job = Snapshot::new(JobId::random(), now + SECOND * later);
            job.status = Status::Succeeded;
            let target = CallbackTarget::new(receiver, ["job.succeeded".to_owned()]);
            job.callbacks = Some(Arc::new([target]));
            let delivery = Delivery::of_end(&job).pop().expect("one delivery");
            state.insert(ChargedDelivery::new(delivery, None));
        }
        state
    }

    /// Returns a room of 8 connections. Receivers of a standing use so many of them.
    fn room(used: usize, standing: ReceiverStanding) -> SendRoom {
        let mut room = SendRoom::new(8, 2, Duration::from_secs(60));
        let share = used;
        room.set_receiver(
            "users",
            ReceiverRoom {
                used,
                share,
                standing,
            },
        );
        room
    }

    fn take(state: &mut OutboxState, room: SendRoom, now: SystemTime) -> Vec<String> {
        let taken = state.take(room, now).deliveries.into_iter();
        taken.map(|delivery| delivery.url).collect()
    }

    fn failing(mut room: SendRoom, receivers: &[String]) -> SendRoom {
        let failing = ReceiverRoom {
            used: 0,
            share: 2,
            standing: ReceiverStanding::Failing,
        };
        receivers
            .iter()
            .for_each(|it| room.set_receiver(&**it, failing));
        room
    }

    #[test]
    fn receivers_without_room_wait_in_order() {
        let start = SystemTime::UNIX_EPOCH;
        let now = start + 60 * SECOND;
        let names: Vec<_> = (0..9).map(|number| format!("http://{number}")).collect();
        let mut state = outbox(&names, start);
        // Half of the connections are for proven receivers.
        let unknown = ReceiverStanding::Unknown;
        assert_eq!(take(&mut state, room(0, unknown), now), names[..4]);
        let due = state.take(room(4, unknown), now);
        assert!(due.deliveries.is_empty() && due.has_waiting);
        assert_eq!(take(&mut state, room(2, unknown), now), names[4..6]);
        // Connections of failing receivers are not for the others that fail.
        let used = failing(room(2, ReceiverStanding::Failing), &names[6..8]);
        assert_eq!(take(&mut state, used, now), names[8..]);
        let free = failing(room(0, ReceiverStanding::Failing), &names[6..8]);
        assert_eq!(take(&mut state, free, now), names[6..8]);
        assert!(!state.take(room(0, unknown), now).has_waiting);
    }

    #[test]
    fn waiting_receiver_is_found_once_it_is_proven() {
        let now = SystemTime::UNIX_EPOCH + 60 * SECOND;
        let names = ["http://a", "http://a"].map(str::to_owned);
        let mut state = outbox(&names, SystemTime::UNIX_EPOCH);
        let [first] = &state
            .take(room(3, ReceiverStanding::Unknown), now)
            .deliveries[..]
        else {
            panic!("one has room");
        };
        let (id, full) = (first.id, room(4, ReceiverStanding::Unknown));
        assert!(state.take(full.clone(), now).deliveries.is_empty());
        let delivered = Settlement::Delivered(Attempt::answered(now, 204));
        state.change(id, |delivery| delivery.settle(&delivered, now));
        let mut proven = full;
        let (used, share, standing) = (0, 2, ReceiverStanding::Proven);
        proven.set_receiver(
            "http://a",
            ReceiverRoom {
                used,
                share,
                standing,
            },
        );
        assert_eq!(take(&mut state, proven, now), names[1..]);
    }
}
