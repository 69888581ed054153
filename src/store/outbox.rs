//! The trait of stores that record deliveries.

use std::{error, fmt, future::Future, pin::Pin, sync::Arc, time::SystemTime};

use super::{
    delivery::{Delivery, DeliveryId, DeliveryState, Settlement},
    room::SendRoom,
};
use crate::job::JobId;

/// The default of [`DeliveryFilter::limit`].
const DEFAULT_LIMIT: usize = 100;

/// The maximum of [`DeliveryFilter::limit`].
const MAX_LIMIT: usize = 1_000;

/// A future of an [`Outbox`].
pub type OutboxFuture<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// The outbox of a store.
pub type SharedOutbox<E> = Arc<dyn Outbox<Error = E>>;

/// Keeps deliveries until they have been sent, in the order in which they are due.
///
/// The store records the [deliveries](Delivery::of_end) of each end of a job, as
/// [`Store::outbox`](super::Store::outbox) describes: by its call, by
/// [`cancel`](super::Store::cancel) or [`forget`](super::Store::forget), or with a lost claim. A
/// pending delivery outlives its job.
///
/// Delivery is at least once. [`take`](Self::take) leases a delivery for
/// [`SendRoom::lease`]; if its process dies, it is due again after that time.
///
/// All returned futures are cancel safe: a dropped operation takes effect completely or not at all.
pub trait Outbox: fmt::Debug + Send + Sync + 'static {
    /// The error of the store.
    type Error: error::Error + Send + Sync + 'static;

    /// Returns `true` if deliveries survive this process.
    fn is_durable(&self) -> bool;

    /// Leases deliveries that are due and have [room](SendRoom::free), and returns at once.
    ///
    /// A receiver without room holds up no other.
    fn take(&self, room: SendRoom) -> OutboxFuture<'_, DueDeliveries, Self::Error>;

    /// Completes when deliveries may have become due that no [`take`](Self::take) has returned: new
    /// ones, and those that were redelivered. A notification between two calls is not lost.
    fn added(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Settles a delivery that was leased. Has no effect if another process has settled it. Compare
    /// `attempts` to detect that.
    fn settle(
        &self,
        delivery: &Delivery,
        settlement: Settlement,
    ) -> OutboxFuture<'_, (), Self::Error>;

    /// Returns the deliveries of a job, without their bodies, in the order of their targets.
    fn of_job(&self, job: JobId) -> OutboxFuture<'_, Vec<Delivery>, Self::Error>;

    /// Lists deliveries without their bodies, the newest first.
    fn list(&self, filter: &DeliveryFilter) -> OutboxFuture<'_, DeliveryPage, Self::Error>;

    /// Makes a delivery due at once, with all of its attempts. Resolves to `false` if there is no
    /// such delivery, or if it has been delivered.
    fn redeliver(&self, id: DeliveryId) -> OutboxFuture<'_, bool, Self::Error>;

    /// Counts the pending deliveries.
    fn stats(&self) -> OutboxFuture<'_, OutboxStats, Self::Error>;
}

/// Deliveries that a process has leased.
#[derive(Debug, Clone, Default)]
#[must_use = "the deliveries are leased"]
#[non_exhaustive]
pub struct DueDeliveries {
    /// The leased deliveries, with their bodies. Their state is as before the lease.
    pub deliveries: Vec<Delivery>,
    /// The time at which the next delivery is due, among those that are not due yet.
    pub next_at: Option<SystemTime>,
    /// Set if others are due and have no room. A drain of a store in memory waits for them.
    pub has_waiting: bool,
}

/// The number of pending deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutboxStats {
    /// The number of pending deliveries.
    pub pending: u64,
    /// The time at which the oldest of them was recorded.
    pub oldest: Option<SystemTime>,
}

/// Selects deliveries to list. Default: all.
#[derive(Debug, Clone)]
#[must_use = "a filter does nothing until it is given to `Jobs::deliveries`"]
pub struct DeliveryFilter {
    state: Option<&'static str>,
    limit: usize,
    before: Option<DeliveryCursor>,
}

/// A page of deliveries.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeliveryPage {
    /// The deliveries, without their bodies.
    pub deliveries: Vec<Delivery>,
    /// The position after the last of them, if there may be more.
    pub next: Option<DeliveryCursor>,
}

/// A position in the list of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryCursor {
    /// The time at which the delivery was recorded, to the millisecond.
    pub created_at: SystemTime,
    /// The id of the delivery.
    pub id: DeliveryId,
}

impl Default for DeliveryFilter {
    fn default() -> Self {
        Self {
            state: None,
            limit: DEFAULT_LIMIT,
            before: None,
        }
    }
}

impl DeliveryFilter {
    /// Creates a filter of all deliveries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects pending deliveries.
    pub fn pending(mut self) -> Self {
        self.state = Some(DeliveryState::Pending(SystemTime::UNIX_EPOCH).as_str());
        self
    }

    /// Selects deliveries that have failed for good.
    pub fn failed(mut self) -> Self {
        self.state = Some(DeliveryState::Failed.as_str());
        self
    }

    /// Selects deliveries that receivers have acknowledged.
    pub fn delivered(mut self) -> Self {
        self.state = Some(DeliveryState::Delivered.as_str());
        self
    }

    /// Sets the maximum number of deliveries, from 1 to 1,000. Default: 100.
    pub fn limit(mut self, deliveries: usize) -> Self {
        self.limit = deliveries.clamp(1, MAX_LIMIT);
        self
    }

    /// Continues after the last delivery of a page.
    pub fn after(mut self, cursor: DeliveryCursor) -> Self {
        self.before = Some(cursor);
        self
    }

    /// Returns the name of the state that is selected.
    pub fn get_state(&self) -> Option<&'static str> {
        self.state
    }

    /// Returns the maximum number of deliveries.
    pub fn get_limit(&self) -> usize {
        self.limit
    }

    /// Returns the position that the page continues from.
    pub fn get_after(&self) -> Option<DeliveryCursor> {
        self.before
    }

    /// Returns `true` if a delivery has the state that is selected.
    pub fn matches(&self, delivery: &Delivery) -> bool {
        self.state
            .is_none_or(|state| state == delivery.state.as_str())
    }
}

impl DeliveryPage {
    /// Creates a page of deliveries, the newest first. `has_more` is set if others follow.
    pub fn new(deliveries: Vec<Delivery>, has_more: bool) -> Self {
        let last = deliveries.last().filter(|_| has_more);
        Self {
            next: last.map(DeliveryCursor::of),
            deliveries,
        }
    }
}

impl DeliveryCursor {
    /// Returns the position of a delivery.
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            created_at: delivery.created_at,
            id: delivery.id,
        }
    }
}

impl OutboxStats {
    /// Creates a count of pending deliveries. `oldest` is the time at which the oldest of them was
    /// recorded.
    pub fn new(pending: u64, oldest: Option<SystemTime>) -> Self {
        Self { pending, oldest }
    }
}

impl DueDeliveries {
    /// Creates a result of [`Outbox::take`]. `next_at` is the time at which the next delivery is
    /// due.
    pub fn new(deliveries: Vec<Delivery>, next_at: Option<SystemTime>) -> Self {
        Self {
            deliveries,
            next_at,
            has_waiting: false,
        }
    }

    /// Sets whether other deliveries are due but have no room. Default: `false`.
    pub fn with_waiting(mut self, has_waiting: bool) -> Self {
        self.has_waiting = has_waiting;
        self
    }
}
