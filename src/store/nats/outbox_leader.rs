//! The process that sends deliveries: it holds the lease, and an index of what is pending.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{
    Message,
    consumer::{
        DeliverPolicy,
        push::{Ordered, OrderedConfig},
    },
};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::{
    deliveries::decode_delivery,
    delivery_index::{DeliveryIndex, IndexLease},
    error::NatsError,
    jetstream::JetStream,
    messages,
    scan::scan,
};
use crate::store::{Delivery, DeliveryId, OutboxStats, SendRoom};

/// The delay before a broken consumer of deliveries is restarted.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// The minimum time after which a process that takes no deliveries gives up the lease.
///
/// It must be longer than the pause between two looks of a process that sends webhooks.
const MIN_IDLE: Duration = Duration::from_secs(30);

/// The interval of removing settled deliveries.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(60);

/// The lease of this process, and the index while it has the lease.
pub(super) struct OutboxLeader {
    pub(super) jetstream: Arc<JetStream>,
    /// A random number of this process.
    holder: u64,
    /// Held for a look or a change, never across an await.
    state: Mutex<LeaderState>,
    /// Notified if deliveries are taken after a pause.
    wanted: Notify,
    /// Notified if a delivery may be due that was not taken before.
    pub(super) added: Notify,
}

#[derive(Default)]
struct LeaderState {
    /// The end of the lease. `None` if another process has it.
    leads_until: Option<Instant>,
    /// The time until which this process keeps the lease if it takes no deliveries.
    wanted_until: Option<Instant>,
    /// Empty unless this process leads.
    index: DeliveryIndex,
}

/// Deliveries that are leased in the index. Dropping it releases those that were not handed out.
pub(super) struct LeasedBatch<'a> {
    leader: &'a OutboxLeader,
    leases: Vec<IndexLease>,
}

impl OutboxLeader {
    pub(super) fn new(jetstream: Arc<JetStream>) -> Self {
        Self {
            jetstream,
            holder: rand::random(),
            state: Mutex::default(),
            wanted: Notify::new(),
            added: Notify::new(),
        }
    }

    /// Leases what is due in the index, with the time at which the next delivery is due.
    pub(super) fn lease(&self, mut room: SendRoom) -> (LeasedBatch<'_>, Option<SystemTime>) {
        let mut state = self.state.lock();
        let now = SystemTime::now();
        let mut batch = LeasedBatch {
            leader: self,
            leases: Vec::new(),
        };
        if !state.is_wanted() {
            self.wanted.notify_one();
        }
        // Until its leases end, this process may be busy with what it has taken before.
        state.wanted_until = Some(Instant::now() + MIN_IDLE.max(room.lease()));
        if !state.leads() {
            return (batch, None);
        }
        let until = now + room.lease();
        batch.leases = state.index.lease(&mut room, now, until);
        let next_at = state.index.next_after(now);
        (batch, next_at)
    }

    /// Applies a delivery as it was written at `sequence`.
    pub(super) fn apply(&self, sequence: u64, delivery: &Delivery) {
        let mut state = self.state.lock();
        if state.leads_until.is_some() && state.index.apply(sequence, delivery) {
            drop(state);
            self.added.notify_one();
        }
    }

    /// Makes a delivery due again, since no attempt was made.
    pub(super) fn release_unsent(&self, id: DeliveryId) {
        self.state.lock().index.release_unsent(id);
        self.added.notify_one();
    }

    /// Counts the pending deliveries. Returns zeros if another process has the lease.
    pub(super) fn stats(&self) -> OutboxStats {
        let state = self.state.lock();
        if state.leads() {
            state.index.stats()
        } else {
            OutboxStats::default()
        }
    }

    /// Competes for the lease while deliveries are taken. Maintains the index during the lease.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.acquire().await;
            select! {
                () = self.keep_lease() => {}
                () = self.follow() => {}
                () = self.remove_settled() => {}
            }
            let mut state = self.state.lock();
            state.leads_until = None;
            state.index = DeliveryIndex::default();
        }
    }

    /// Waits until this process has the lease.
    async fn acquire(&self) {
        let lease = self.jetstream.outbox_lease();
        loop {
            while !self.state.lock().is_wanted() {
                self.wanted.notified().await;
            }
            let begun = Instant::now();
            match self.jetstream.take_outbox_lease(self.holder, lease).await {
                Ok(true) => {
                    self.state.lock().leads_until = Some(begun + lease);
                    return;
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "failed to take the lease of the outbox"),
            }
            sleep(lease / 3).await;
        }
    }

    /// Renews the lease three times per period, until another process has it or this one takes no
    /// deliveries.
    async fn keep_lease(&self) {
        let lease = self.jetstream.outbox_lease();
        let mut until = Instant::now() + lease;
        while Instant::now() < until {
            sleep(lease / 3).await;
            let lasting = if self.state.lock().is_wanted() {
                lease
            } else {
                Duration::ZERO
            };
            let begun = Instant::now();
            let renewed = self.jetstream.take_outbox_lease(self.holder, lasting);
            match timeout_at(until, renewed).await {
                Ok(Ok(true)) if lasting.is_zero() => return,
                Ok(Ok(true)) => {
                    until = begun + lease;
                    self.state.lock().leads_until = Some(until);
                }
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "failed to renew the lease of the outbox");
                }
                Err(_) => {}
            }
        }
        tracing::warn!("lost the lease of the outbox");
    }

    /// Builds the index, and then applies each write of a delivery.
    async fn follow(&self) {
        while let Err(error) = self.read_all().await {
            tracing::warn!(%error, "failed to read the deliveries");
            sleep(RESTART_DELAY).await;
        }
        loop {
            match self.open().await {
                Ok(mut changes) => {
                    while let Some(Ok(change)) = changes.next().await {
                        self.apply_message(&change);
                    }
                    tracing::warn!("lost the consumer of deliveries");
                }
                Err(error) => tracing::warn!(%error, "failed to follow the deliveries"),
            }
            sleep(RESTART_DELAY).await;
        }
    }

    /// Applies all deliveries of the stream.
    ///
    /// It asks for some at a time. The server would send all of them at once to a consumer that
    /// follows, and the answer that renews the lease would come too late.
    async fn read_all(&self) -> Result<(), NatsError> {
        let jetstream = &self.jetstream;
        let (stream, subjects) = (
            &jetstream.streams.deliveries,
            jetstream.names.all_deliveries(),
        );
        scan(stream, subjects, true, |message| {
            Ok(self.apply_message(message))
        })
        .await
    }

    /// Applies a message without its body. Returns the delivery's id, unless it is unreadable.
    fn apply_message(&self, message: &Message) -> Option<DeliveryId> {
        let sequence = message.info().map_or(0, |info| info.stream_sequence);
        let headers = message.headers.as_ref();
        match decode_delivery(&message.subject, headers, Bytes::new()) {
            Ok(delivery) => {
                self.apply(sequence, &delivery);
                Some(delivery.id)
            }
            Err(error) => {
                // A process of the version that wrote it looks after it.
                tracing::warn!(%error, "skipped a delivery");
                None
            }
        }
    }

    /// Creates a consumer of the deliveries that the index does not have, without their bodies.
    async fn open(&self) -> Result<Ordered, NatsError> {
        let last = self.state.lock().index.last_sequence();
        let config = OrderedConfig {
            deliver_subject: self.jetstream.context.client().new_inbox(),
            filter_subject: self.jetstream.names.all_deliveries(),
            headers_only: true,
            // Start at the last message instead of after it: an ordered consumer that has received
            // a message resumes there after an interruption. The index ignores what it knows.
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: last.max(1),
            },
            ..OrderedConfig::default()
        };
        let consumer = self.jetstream.streams.deliveries.create_consumer(config);
        let consumer = consumer.await.map_err(NatsError::unavailable)?;
        consumer.messages().await.map_err(NatsError::unavailable)
    }

    /// Removes deliveries that were settled long ago.
    async fn remove_settled(&self) {
        loop {
            sleep(REMOVAL_INTERVAL).await;
            let take = || {
                let now = SystemTime::now();
                self.state.lock().index.take_expired(now)
            };
            while let Some(sequence) = take() {
                let deliveries = &self.jetstream.streams.deliveries;
                // If this fails, it expires with the stream's maximum age.
                if let Err(error) = messages::delete(deliveries, sequence).await {
                    tracing::warn!(%error, "failed to remove a settled delivery");
                }
            }
        }
    }
}

impl LeaderState {
    /// Returns `true` if deliveries were taken lately.
    fn is_wanted(&self) -> bool {
        self.wanted_until
            .is_some_and(|until| Instant::now() < until)
    }

    fn leads(&self) -> bool {
        self.leads_until.is_some_and(|until| Instant::now() < until)
    }
}

impl LeasedBatch<'_> {
    pub(super) fn leases(&self) -> &[IndexLease] {
        &self.leases
    }

    /// Removes a delivery from the index, since the stream no longer has it.
    pub(super) fn forget(&self, lease: IndexLease) {
        self.leader.state.lock().index.forget(lease);
    }

    /// Keeps the leases: the deliveries are handed out.
    pub(super) fn keep(mut self) {
        self.leases.clear();
    }
}

impl Drop for LeasedBatch<'_> {
    fn drop(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let mut state = self.leader.state.lock();
        for lease in self.leases.drain(..) {
            state.index.release(lease);
        }
    }
}
