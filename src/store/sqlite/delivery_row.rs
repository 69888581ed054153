//! The row of a delivery.

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error as DecodeError},
};

use super::{
    clock::{Millis, as_millis, from_unix_millis, unix_millis},
    error::SqliteError,
};
use crate::{
    JobId, Owner,
    store::{
        Attempt, AttemptFailure, DELIVERED_RETENTION, Delivery, DeliveryId, DeliveryState,
        FAILED_RETENTION,
    },
};

/// The columns that [`read_delivery`] reads, as the end of a list.
macro_rules! delivery_columns {
    () => {
        "job, target, created_at, owner, event, url, is_get, state, due_at, attempts, last_at, \
         last_status, last_failure"
    };
}
pub(super) use delivery_columns;

/// Reads a delivery without its body.
pub(super) fn read_delivery(row: &Row<'_>) -> Result<Delivery, SqliteError> {
    let text = |column| {
        let text = row.get_ref(column)?.as_str();
        text.map_err(SqliteError::unreadable("a text"))
    };
    let job: JobId = text(0)?
        .parse()
        .map_err(SqliteError::unreadable("a job id"))?;
    let due_at: Option<Millis> = row.get(8)?;
    let state = match (text(7)?, due_at) {
        ("pending", Some(at)) => DeliveryState::Pending(from_unix_millis(at)),
        ("delivered", None) => DeliveryState::Delivered,
        ("failed", None) => DeliveryState::Failed,
        (state, _) => return Err(SqliteError::unreadable("a delivery's state")(state)),
    };
    let last_at: Option<Millis> = row.get(10)?;
    let last = match last_at {
        Some(at) => Some(Attempt {
            at: from_unix_millis(at),
            status: row.get(11)?,
            failure: read_failure(row)?,
        }),
        None => None,
    };
    Ok(Delivery {
        id: DeliveryId::new(job, row.get(1)?),
        owner: row.get::<_, Option<[u8; 16]>>(3)?.map(Owner::from_bytes),
        event: text(4)?.to_owned(),
        url: text(5)?.to_owned(),
        is_get: row.get(6)?,
        body: Default::default(),
        created_at: from_unix_millis(row.get(2)?),
        state,
        attempts: row.get(9)?,
        last,
    })
}

fn read_failure(row: &Row<'_>) -> Result<Option<AttemptFailure>, SqliteError> {
    let unreadable = "a delivery's failure";
    let name = row.get_ref(12)?.as_str_or_null();
    let name = name.map_err(SqliteError::unreadable(unreadable))?;
    name.map(|name| {
        let failure = AttemptFailure::deserialize(name.into_deserializer());
        failure.map_err(|error: DecodeError| SqliteError::unreadable(unreadable)(error))
    })
    .transpose()
}

/// Reads a delivery without its body.
pub(super) fn load_delivery(
    connection: &Connection,
    id: DeliveryId,
) -> Result<Option<Delivery>, SqliteError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        delivery_columns!(),
        " FROM delivery WHERE job = ?1 AND target = ?2"
    ))?;
    let row = statement.query_row((id.job().to_string(), id.target()), |row| {
        Ok(read_delivery(row))
    });
    row.optional()?.transpose()
}

/// Inserts a delivery with its body. One that exists stays as it is.
pub(super) fn insert_delivery(
    connection: &Connection,
    delivery: &Delivery,
) -> Result<(), SqliteError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO delivery (job, target, rank, created_at, owner, event, url, receiver, is_get, \
         state, due_at, attempts, body) VALUES (:job, :target, :rank, :created_at, :owner, :event, \
         :url, :receiver, :is_get, :state, :due_at, :attempts, :body) ON CONFLICT DO NOTHING",
    )?;
    statement.execute(named_params! {
        ":job": delivery.id.job().to_string(),
        ":target": delivery.id.target(),
        ":rank": delivery.id.job().to_bytes(),
        ":created_at": unix_millis(delivery.created_at),
        ":owner": delivery.owner.as_ref().map(Owner::as_bytes),
        ":event": delivery.event,
        ":url": delivery.url,
        ":receiver": delivery.receiver(),
        ":is_get": delivery.is_get,
        ":state": delivery.state.as_str(),
        ":due_at": delivery.due_at().map(unix_millis),
        ":attempts": delivery.attempts,
        ":body": &delivery.body[..],
    })?;
    Ok(())
}

/// Writes all that can change. The body goes with the last attempt.
pub(super) fn save_delivery(
    connection: &Connection,
    delivery: &Delivery,
    now: Millis,
) -> Result<(), SqliteError> {
    let last = delivery.last.as_ref();
    let keep = match delivery.state {
        DeliveryState::Pending(_) => None,
        DeliveryState::Delivered => Some(DELIVERED_RETENTION),
        DeliveryState::Failed => Some(FAILED_RETENTION),
    };
    let mut statement = connection.prepare_cached(
        "UPDATE delivery SET state = :state, due_at = :due_at, process = NULL, \
         attempts = :attempts, last_at = :last_at, last_status = :last_status, \
         last_failure = :last_failure, expires_at = :expires_at, \
         body = iif(:state = 'delivered', x'', body) \
         WHERE job = :job AND target = :target",
    )?;
    statement.execute(named_params! {
        ":job": delivery.id.job().to_string(),
        ":target": delivery.id.target(),
        ":state": delivery.state.as_str(),
        ":due_at": delivery.due_at().map(unix_millis),
        ":attempts": delivery.attempts,
        ":last_at": last.map(|last| unix_millis(last.at)),
        ":last_status": last.and_then(|last| last.status),
        ":last_failure": last.and_then(|last| last.failure).map(AttemptFailure::as_str),
        ":expires_at": keep.map(|keep| now.saturating_add(as_millis(keep))),
    })?;
    Ok(())
}
