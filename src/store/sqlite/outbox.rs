//! The outbox of the store.

use std::{convert::identity, fmt, future::Future, pin::Pin, sync::Arc};

use rusqlite::{Connection, named_params};

use super::{
    clock::{from_unix_millis, unix_millis},
    delivery_row::{delivery_columns, read_delivery},
    error::SqliteError,
    lease,
    process::Process,
    step::Step,
};
use crate::{
    JobId,
    store::{
        Delivery, DeliveryFilter, DeliveryId, DeliveryPage, DueDeliveries, Outbox, OutboxFuture,
        OutboxStats, SendRoom, Settlement,
    },
};

/// The outbox of the store: the table `delivery`.
pub(super) struct SqliteOutbox {
    process: Arc<Process>,
}

impl SqliteOutbox {
    pub(super) fn new(process: Arc<Process>) -> Self {
        Self { process }
    }
}

impl Outbox for SqliteOutbox {
    type Error = SqliteError;

    fn is_durable(&self) -> bool {
        true
    }

    fn take(&self, room: SendRoom) -> OutboxFuture<'_, DueDeliveries, SqliteError> {
        Box::pin(async move {
            if self.process.shared.options.is_observer {
                return Ok(DueDeliveries::default());
            }
            lease::take(&self.process, room).await
        })
    }

    fn added(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.process.shared.deliveries_due.notified())
    }

    fn settle(
        &self,
        delivery: &Delivery,
        settlement: Settlement,
    ) -> OutboxFuture<'_, (), SqliteError> {
        let (id, attempts) = (delivery.id, delivery.attempts);
        let work = move |step: &mut Step<'_>| step.settle(id, attempts, &settlement);
        Box::pin(self.process.commit(work, identity))
    }

    fn of_job(&self, job: JobId) -> OutboxFuture<'_, Vec<Delivery>, SqliteError> {
        let reading = self
            .process
            .readers
            .read(move |file| find_of_job(file, job));
        Box::pin(reading)
    }

    fn list(&self, filter: &DeliveryFilter) -> OutboxFuture<'_, DeliveryPage, SqliteError> {
        let filter = filter.clone();
        Box::pin(self.process.readers.read(move |file| list(file, &filter)))
    }

    fn redeliver(&self, id: DeliveryId) -> OutboxFuture<'_, bool, SqliteError> {
        Box::pin(
            self.process
                .commit(move |step| step.redeliver(id), identity),
        )
    }

    fn stats(&self) -> OutboxFuture<'_, OutboxStats, SqliteError> {
        Box::pin(self.process.readers.read(count))
    }
}

impl fmt::Debug for SqliteOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOutbox")
            .field("path", &self.process.shared.path)
            .finish_non_exhaustive()
    }
}

fn find_of_job(connection: &Connection, job: JobId) -> Result<Vec<Delivery>, SqliteError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM delivery WHERE job = ?1 ORDER BY target"
    ))?;
    let mut rows = statement.query([job.to_string()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_delivery(row)?);
    }
    Ok(found)
}

fn list(connection: &Connection, filter: &DeliveryFilter) -> Result<DeliveryPage, SqliteError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM delivery WHERE (created_at, rank, target) < (:created_at, :rank, :target) \
         AND (:state IS NULL OR state = :state) \
         ORDER BY created_at DESC, rank DESC, target DESC LIMIT :limit"
    ))?;
    let cursor = filter.get_after();
    let limit = filter.get_limit();
    let mut rows = statement.query(named_params! {
        ":created_at": cursor.map_or(i64::MAX, |cursor| unix_millis(cursor.created_at)),
        ":rank": cursor.map_or([0; 16], |cursor| cursor.id.job().to_bytes()),
        ":target": cursor.map_or(0, |cursor| cursor.id.target()),
        ":state": filter.get_state(),
        // One more shows whether there is another page.
        ":limit": (limit as u64).saturating_add(1).min(i64::MAX as u64),
    })?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(read_delivery(row)?);
    }
    let has_more = deliveries.len() > limit;
    deliveries.truncate(limit);
    Ok(DeliveryPage::new(deliveries, has_more))
}

fn count(connection: &Connection) -> Result<OutboxStats, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*), min(created_at) FROM delivery WHERE due_at IS NOT NULL",
    )?;
    Ok(statement.query_row([], |row| {
        let oldest: Option<i64> = row.get(1)?;
        Ok(OutboxStats {
            pending: row.get(0)?,
            oldest: oldest.map(from_unix_millis),
        })
    })?)
}
