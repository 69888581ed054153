//! The deliveries in memory.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, ready},
    pin::Pin,
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outbox_state::{ChargedDelivery, OutboxState};
use crate::{
    job::JobId,
    limit::{Budget, Charge},
    store::{
        Delivery, DeliveryFilter, DeliveryId, DeliveryPage, DueDeliveries, Outbox, OutboxFuture,
        OutboxStats, SendRoom, Settlement,
    },
};

/// The bytes of a delivery besides its texts: the delivery, and its entries in indexes.
const DELIVERY_BYTES: usize = 512;

/// Deliveries take at most this part of the budget.
const BUDGET_PART: usize = 8;

/// The deliveries in memory.
///
/// They count in the budget, and take at most an eighth of it. Beyond that, the oldest are dropped:
/// first those that are settled, then the pending ones.
pub(super) struct MemoryOutbox {
    budget: Budget,
    /// Held for one operation, never across an await.
    state: Mutex<OutboxState>,
    added: Notify,
}

impl MemoryOutbox {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            state: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Returns the bytes that a delivery takes.
    pub(super) fn price(delivery: &Delivery) -> usize {
        DELIVERY_BYTES + delivery.url.len() + delivery.body.len()
    }

    /// Records a delivery. Without a charge, the budget had no room for it.
    pub(super) fn add(&self, delivery: Delivery, charge: Option<Charge>) {
        let max_bytes = self.budget.limit() / BUDGET_PART;
        // Dropped after the lock: a release may wake other tasks.
        let _removed = {
            let mut state = self.state.lock();
            let bytes = Self::price(&delivery);
            let removed = state.make_room(bytes, max_bytes);
            state.insert(ChargedDelivery::new(delivery, bytes, charge));
            removed
        };
        self.added.notify_one();
    }
}

impl Outbox for MemoryOutbox {
    type Error = Infallible;

    fn is_durable(&self) -> bool {
        false
    }

    fn take(&self, room: SendRoom) -> OutboxFuture<'_, DueDeliveries, Infallible> {
        let taken = self.state.lock().take(room, SystemTime::now());
        Box::pin(ready(Ok(taken)))
    }

    fn added(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.added.notified())
    }

    fn settle(
        &self,
        leased: &Delivery,
        settlement: Settlement,
    ) -> OutboxFuture<'_, (), Infallible> {
        let now = SystemTime::now();
        // Dropped after the lock: a release may wake other tasks.
        let _removed = {
            let mut state = self.state.lock();
            state.change(leased.id, |delivery| {
                // Another sender may have settled it after this lease had ended.
                if delivery.due_at().is_some() && delivery.attempts == leased.attempts {
                    delivery.settle(&settlement, now);
                }
            });
            state.expire(now)
        };
        self.added.notify_one();
        Box::pin(ready(Ok(())))
    }

    fn of_job(&self, job: JobId) -> OutboxFuture<'_, Vec<Delivery>, Infallible> {
        Box::pin(ready(Ok(self.state.lock().of_job(job))))
    }

    fn list(&self, filter: &DeliveryFilter) -> OutboxFuture<'_, DeliveryPage, Infallible> {
        Box::pin(ready(Ok(self.state.lock().list(filter))))
    }

    fn redeliver(&self, id: DeliveryId) -> OutboxFuture<'_, bool, Infallible> {
        let mut is_repeated = false;
        self.state.lock().change(id, |delivery| {
            is_repeated = delivery.repeat(SystemTime::now());
        });
        self.added.notify_one();
        Box::pin(ready(Ok(is_repeated)))
    }

    fn stats(&self) -> OutboxFuture<'_, OutboxStats, Infallible> {
        Box::pin(ready(Ok(self.state.lock().stats())))
    }
}

impl fmt::Debug for MemoryOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOutbox")
            .field("pending", &self.state.lock().stats().pending)
            .finish_non_exhaustive()
    }
}
