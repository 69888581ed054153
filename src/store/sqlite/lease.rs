//! Leases deliveries that are due.

use std::convert::identity;

use rusqlite::Connection;

use super::{
    clock::{Millis, as_millis, from_unix_millis, unix_now},
    delivery_row::{delivery_columns, read_delivery},
    error::SqliteError,
    process::Process,
    step::Step,
};
use crate::store::{Delivery, DeliveryState, DueDeliveries, SendRoom};

/// The deliveries that a look has found.
struct DueRows {
    /// Those that are due and have room.
    due: Vec<DueRow>,
    /// The time at which the next one of all others is due, if it is not due yet.
    next_at: Option<Millis>,
}

/// A delivery as a look has found it.
struct DueRow {
    seq: i64,
    due_at: Millis,
}

/// A receiver of pending deliveries.
struct Receiver {
    name: String,
    first_due_at: Millis,
    /// The time at which the next delivery is due that is not due yet.
    next_due_at: Option<Millis>,
}

/// Leases deliveries that are due and have room.
///
/// The look comes first, on a connection that reads. So the scan of many receivers delays no other
/// write, and a process without work writes nothing.
pub(super) async fn take(process: &Process, room: SendRoom) -> Result<DueDeliveries, SqliteError> {
    let lease = as_millis(room.lease());
    loop {
        let room = room.clone();
        let found = process.readers.read(move |file| find_due(file, room));
        let DueRows { due, next_at } = found.await?;
        if due.is_empty() {
            return Ok(DueDeliveries::new(
                Vec::new(),
                next_at.map(from_unix_millis),
            ));
        }
        let found = due.len();
        let leasing = process.commit(move |step| step.lease(&due, lease), identity);
        let leased = leasing.await?;
        let next_at = if leased.len() < found {
            // Another process was faster. More may be due, and there is room for them.
            unix_now()
        } else {
            // If this process hangs, no one would look when its leases end.
            let end = unix_now().saturating_add(lease);
            next_at.map_or(end, |next_at| next_at.min(end))
        };
        if !leased.is_empty() {
            return Ok(DueDeliveries::new(leased, Some(from_unix_millis(next_at))));
        }
    }
}

/// Finds the deliveries that are due and have room. Receivers come in the order of their first
/// ones.
fn find_due(connection: &Connection, mut room: SendRoom) -> Result<DueRows, SqliteError> {
    let now = unix_now();
    let receivers = find_receivers(connection, now)?;
    let mut statement = connection.prepare_cached(
        "SELECT seq, due_at FROM delivery WHERE receiver = ?1 AND due_at <= ?2 \
         ORDER BY due_at LIMIT ?3",
    )?;
    let mut due = Vec::new();
    for receiver in &receivers {
        let free = room.free(&receiver.name);
        if receiver.first_due_at > now || room.is_full() {
            break;
        }
        if free == 0 {
            continue;
        }
        let rows = statement.query_map((&receiver.name, now, free), |row| {
            Ok(DueRow {
                seq: row.get(0)?,
                due_at: row.get(1)?,
            })
        })?;
        for row in rows {
            let row = row?;
            if room.take(&receiver.name) {
                due.push(row);
            }
        }
    }
    let next = receivers.iter().filter_map(|receiver| receiver.next_due_at);
    Ok(DueRows {
        due,
        next_at: next.min(),
    })
}

/// Returns the receivers of pending deliveries, in the order of their first ones. It takes two
/// seeks in an index for each receiver, however many deliveries that has.
fn find_receivers(connection: &Connection, now: Millis) -> Result<Vec<Receiver>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE found (name) AS (\
         SELECT min(receiver) FROM delivery WHERE due_at IS NOT NULL UNION ALL \
         SELECT (SELECT min(receiver) FROM delivery WHERE receiver > name AND due_at IS NOT NULL) \
         FROM found WHERE name IS NOT NULL) \
         SELECT name, \
         (SELECT min(due_at) FROM delivery WHERE receiver = name AND due_at IS NOT NULL) AS first, \
         (SELECT min(due_at) FROM delivery WHERE receiver = name AND due_at > ?1) \
         FROM found WHERE name IS NOT NULL ORDER BY first",
    )?;
    let rows = statement.query_map([now], |row| {
        Ok(Receiver {
            name: row.get(0)?,
            first_due_at: row.get(1)?,
            next_due_at: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Step<'_> {
    /// Leases deliveries for a time, unless they have changed since the look. Returns them with
    /// their bodies, as they were before.
    ///
    /// A lease is a later time at which the delivery is due. So the lease of a hung process ends by
    /// itself.
    fn lease(&mut self, found: &[DueRow], lease: Millis) -> Result<Vec<Delivery>, SqliteError> {
        let mut statement = self.connection.prepare_cached(concat!(
            "UPDATE delivery SET due_at = ?1, process = ?4 WHERE seq = ?2 AND due_at = ?3 ",
            "RETURNING ",
            delivery_columns!(),
            ", body"
        ))?;
        let end = self.now.saturating_add(lease);
        let mut leased = Vec::with_capacity(found.len());
        for DueRow { seq, due_at } in found {
            let mut rows = statement.query((end, seq, due_at, self.shared.number))?;
            let Some(row) = rows.next()? else {
                continue;
            };
            match read_delivery(row) {
                Ok(mut delivery) => {
                    delivery.state = DeliveryState::Pending(from_unix_millis(*due_at));
                    let body: Vec<u8> = row.get(13)?;
                    delivery.body = body.into();
                    leased.push(delivery);
                }
                // It would fail again. All others go on.
                Err(error) => tracing::error!(%error, "failed to read a delivery"),
            }
        }
        Ok(leased)
    }
}
