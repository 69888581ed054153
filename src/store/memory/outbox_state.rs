//! The deliveries in memory, and their indexes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

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
    /// The receivers that have pending deliveries, by the time at which the first is due.
    receivers: BTreeSet<(SystemTime, Arc<str>)>,
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
        let first = |due: &BTreeSet<_>| due.first().map(|&(at, _)| at);
        let before = first(&due);
        change(&mut due);
        let after = first(&due);
        if before != after {
            if let Some(before) = before {
                self.receivers.remove(&(before, name.clone()));
            }
            if let Some(after) = after {
                self.receivers.insert((after, name.clone()));
            }
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
        // In the order of their earliest deliveries.
        let receivers = self.receivers.iter();
        let receivers = receivers.take_while(|&&(at, _)| at <= now);
        let mut found = Vec::new();
        for (_, receiver) in receivers {
            if room.is_full() {
                break;
            }
            let due = self.due.get(receiver).into_iter().flatten();
            let due = due.take_while(|&&(at, _)| at <= now);
            for &(_, id) in due.take(room.free(receiver)) {
                room.take(receiver);
                found.push(id);
            }
        }
        let until = now + room.lease();
        let leased = found.into_iter().filter_map(|id| self.lease(id, until));
        let leased = leased.collect();
        // Of a receiver without room, only the first delivery counts.
        let first = self.receivers.first();
        let has_waiting = first.is_some_and(|&(at, _)| at <= now);
        let after_now = (now + Duration::from_nanos(1), Arc::from(""));
        let later = self.receivers.range(after_now..).next();
        DueDeliveries::new(leased, later.map(|&(at, _)| at)).with_waiting(has_waiting)
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
