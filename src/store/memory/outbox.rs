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
    telemetry,
};

/// Deliveries take at most the budget divided by this.
const BUDGET_DIVISOR: usize = 8;

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

    /// Records a delivery. `reserve` takes bytes of the budget; without room there, the delivery is
    /// recorded all the same.
    pub(super) fn add(&self, delivery: Delivery, reserve: impl FnOnce(usize) -> Option<Charge>) {
        let max_bytes = self.budget.limit() / BUDGET_DIVISOR;
        let bytes = ChargedDelivery::price(&delivery);
        // Dropped outside of the lock: a release may wake other tasks.
        let removed = self.state.lock().make_room(bytes, max_bytes);
        report_dropped(&removed);
        drop(removed);
        // Outside of the lock too, since this may evict jobs.
        let stored = ChargedDelivery::new(delivery, reserve(bytes));
        // Others may have been added since.
        let removed = {
            let mut state = self.state.lock();
            let removed = state.make_room(bytes, max_bytes);
            state.insert(stored);
            removed
        };
        report_dropped(&removed);
        self.added.notify_one();
    }
}

/// Logs and counts the pending deliveries among those that were removed for room.
fn report_dropped(removed: &[ChargedDelivery]) {
    for delivery in removed.iter().filter_map(ChargedDelivery::pending) {
        tracing::warn!(id = %delivery.id, "dropped a webhook: too many are pending");
        telemetry::webhook_failed("dropped");
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
        let (_excess, _expired) = {
            let mut state = self.state.lock();
            let excess = state.change(leased.id, |delivery| {
                // Another sender may have settled it after this lease had ended.
                if delivery.due_at().is_some() && delivery.attempts == leased.attempts {
                    delivery.settle(&settlement, now);
                }
            });
            (excess, state.expire(now))
        };
        if matches!(settlement, Settlement::Retry(..) | Settlement::Release) {
            self.added.notify_one();
        }
        Box::pin(ready(Ok(())))
    }

    fn of_job(&self, job: JobId) -> OutboxFuture<'_, Vec<Delivery>, Infallible> {
        Box::pin(ready(Ok(self.state.lock().of_job(job))))
    }

    fn list(&self, filter: &DeliveryFilter) -> OutboxFuture<'_, DeliveryPage, Infallible> {
        Box::pin(ready(Ok(self.state.lock().list(filter))))
    }

    fn redeliver(&self, id: DeliveryId) -> OutboxFuture<'_, bool, Infallible> {
        let mut is_found = false;
        let redeliver = |delivery: &mut Delivery| is_found = delivery.redeliver(SystemTime::now());
        let excess = self.state.lock().change(id, redeliver);
        debug_assert!(excess.is_none(), "a redelivered one keeps its body");
        self.added.notify_one();
        Box::pin(ready(Ok(is_found)))
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
