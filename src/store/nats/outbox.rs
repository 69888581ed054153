//! The outbox: deliveries of webhooks, sent by one process at a time.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{task::JoinSet, time::sleep};

use super::{
    deliveries::decode_delivery,
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    outbox_leader::OutboxLeader,
    scan::{scan, skip_unreadable},
};
use crate::{
    JobId,
    store::{
        Delivery, DeliveryCursor, DeliveryFilter, DeliveryId, DeliveryPage, DueDeliveries, Outbox,
        OutboxFuture, OutboxStats, SendRoom, Settlement,
    },
};

/// The number of bodies that are read concurrently.
const READ_CONCURRENCY: usize = 32;

/// The maximum number of rounds if another process settles the delivery at the same time.
const MAX_ROUNDS: usize = 8;

/// The delay before a delivery that another process has written is read again.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// The outbox of [`NatsStore`](super::NatsStore).
pub(super) struct NatsOutbox {
    leader: Arc<OutboxLeader>,
    /// Competes for the lease, from the first `take` on. Dropping it stops the task.
    task: OnceLock<JoinSet<()>>,
}

impl NatsOutbox {
    pub(super) fn new(jetstream: Arc<JetStream>) -> Self {
        Self {
            leader: Arc::new(OutboxLeader::new(jetstream)),
            task: OnceLock::new(),
        }
    }

    fn jetstream(&self) -> &JetStream {
        &self.leader.jetstream
    }

    async fn take(&self, room: SendRoom) -> Result<DueDeliveries, NatsError> {
        self.task.get_or_init(|| {
            let mut task = JoinSet::new();
            task.spawn(self.leader.clone().run());
            task
        });
        let (batch, next_at) = self.leader.lease(room);
        // A failure or a drop releases the whole batch.
        let found: Vec<_> = stream::iter(batch.leases().to_vec())
            .map(async |lease| {
                let found = self.jetstream().delivery(lease.id).await;
                skip_unreadable(found).map(|found| (lease, found.flatten()))
            })
            .buffered(READ_CONCURRENCY)
            .try_collect()
            .await?;
        let mut deliveries = Vec::with_capacity(found.len());
        for (lease, found) in found {
            match found {
                Some(found) if found.sequence == lease.sequence => deliveries.push(found.delivery),
                // Another process has just written it.
                Some(found) => self.leader.apply(found.sequence, &found.delivery),
                None => batch.forget(lease),
            }
        }
        batch.keep();
        Ok(DueDeliveries::new(deliveries, next_at))
    }

    async fn settle(&self, delivery: &Delivery, settlement: Settlement) -> Result<(), NatsError> {
        if settlement == Settlement::Release {
            // The lease is nowhere but in the index.
            self.leader.release_unsent(delivery.id);
            return Ok(());
        }
        let Some(found) = self.jetstream().delivery(delivery.id).await? else {
            return Ok(());
        };
        let mut current = found.delivery;
        if (current.state, current.attempts) != (delivery.state, delivery.attempts) {
            // It was settled or redelivered since it was taken.
            return Ok(());
        }
        current.settle(&settlement, SystemTime::now());
        match self
            .jetstream()
            .put_delivery(&current, found.sequence)
            .await
        {
            Ok(sequence) => {
                self.leader.apply(sequence, &current);
                Ok(())
            }
            Err(WriteError::Conflict) => Ok(()),
            Err(error) => Err(error.into_error()),
        }
    }

    async fn redeliver(&self, id: DeliveryId) -> Result<bool, NatsError> {
        for _ in 0..MAX_ROUNDS {
            let Some(found) = self.jetstream().delivery(id).await? else {
                return Ok(false);
            };
            let mut delivery = found.delivery;
            if !delivery.redeliver(SystemTime::now()) {
                return Ok(false);
            }
            let written = self.jetstream().put_delivery(&delivery, found.sequence);
            match written.await {
                Ok(_) => return Ok(true),
                Err(WriteError::Conflict) => sleep(RETRY_DELAY).await,
                Err(error) => return Err(error.into_error()),
            }
        }
        Err(NatsError::unavailable("the delivery keeps changing"))
    }

    /// Reads the whole stream without bodies, and keeps what fits into the page.
    async fn list(&self, filter: &DeliveryFilter) -> Result<DeliveryPage, NatsError> {
        let jetstream = self.jetstream();
        let (limit, before) = (filter.get_limit(), filter.get_after());
        let mut newest = BTreeMap::new();
        let (stream, subjects) = (
            &jetstream.streams.deliveries,
            jetstream.names.all_deliveries(),
        );
        scan(stream, subjects, true, |message| {
            let headers = message.headers.as_ref();
            let decoded = decode_delivery(&message.subject, headers, Bytes::new());
            let Some(delivery) = skip_unreadable(decoded)? else {
                return Ok(None);
            };
            let (cursor, id) = (DeliveryCursor::of(&delivery), delivery.id);
            if before.is_some_and(|before| cursor >= before) {
                return Ok(Some(id));
            }
            // A delivery that is written during the scan comes again.
            if filter.matches(&delivery) {
                newest.insert(cursor, delivery);
            } else {
                newest.remove(&cursor);
            }
            // One more shows that others follow.
            if newest.len() > limit.saturating_add(1) {
                newest.pop_first();
            }
            Ok(Some(id))
        })
        .await?;
        let has_more = newest.len() > limit;
        let deliveries = newest.into_values().rev().take(limit).collect();
        Ok(DeliveryPage::new(deliveries, has_more))
    }
}

impl Outbox for NatsOutbox {
    type Error = NatsError;

    fn is_durable(&self) -> bool {
        true
    }

    /// Returns nothing in a process that does not hold the lease.
    fn take(&self, room: SendRoom) -> OutboxFuture<'_, DueDeliveries, NatsError> {
        Box::pin(self.take(room))
    }

    fn added(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.leader.added.notified())
    }

    fn settle(
        &self,
        delivery: &Delivery,
        settlement: Settlement,
    ) -> OutboxFuture<'_, (), NatsError> {
        let delivery = delivery.clone();
        Box::pin(async move { self.settle(&delivery, settlement).await })
    }

    fn of_job(&self, job: JobId) -> OutboxFuture<'_, Vec<Delivery>, NatsError> {
        Box::pin(async move {
            let mut deliveries = self.jetstream().deliveries_of(job).await?;
            for delivery in &mut deliveries {
                delivery.body = Bytes::new();
            }
            Ok(deliveries)
        })
    }

    fn list(&self, filter: &DeliveryFilter) -> OutboxFuture<'_, DeliveryPage, NatsError> {
        let filter = filter.clone();
        Box::pin(async move { self.list(&filter).await })
    }

    fn redeliver(&self, id: DeliveryId) -> OutboxFuture<'_, bool, NatsError> {
        Box::pin(self.redeliver(id))
    }

    /// Counts in the process that holds the lease. All others return zeros, so that the sum over
    /// the processes is right.
    fn stats(&self) -> OutboxFuture<'_, OutboxStats, NatsError> {
        Box::pin(async { Ok(self.leader.stats()) })
    }
}

impl fmt::Debug for NatsOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOutbox").finish_non_exhaustive()
    }
}
