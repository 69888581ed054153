//! Looks up and lists jobs.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{
    clock::unix_now,
    error::SqliteError,
    row::{JobRow, select_jobs},
};
use crate::{Cursor, Filter, JobId, Owner, Page, Status, store::Lookup};

/// Looks up a job.
pub(super) fn look_up(connection: &Connection, id: JobId) -> Result<Lookup, SqliteError> {
    match JobRow::load(connection, id)? {
        Some(row) => Ok(row.lookup(unix_now())),
        None => find_tombstone(connection, id),
    }
}

/// Looks for what is remembered of a job that the file no longer has.
pub(super) fn find_tombstone(connection: &Connection, id: JobId) -> Result<Lookup, SqliteError> {
    let mut statement = connection.prepare_cached("SELECT owner FROM tombstone WHERE id = ?1")?;
    let owner = statement.query_row([id.to_string()], |row| row.get(0));
    let owner: Option<Option<[u8; 16]>> = owner.optional()?;
    Ok(owner.map_or(Lookup::Unknown, |owner| {
        Lookup::Gone(owner.map(Owner::from_bytes))
    }))
}

/// Lists the jobs that match a filter, the newest first.
pub(super) fn list(connection: &Connection, filter: &Filter) -> Result<Page, SqliteError> {
    let mut statement = match filter.get_owner() {
        Some(_) => connection.prepare_cached(select_jobs!(
            "WHERE owner = :owner AND (created_at, rank) < (:created_at, :rank) \
             AND (expires_at IS NULL OR expires_at > :now) \
             AND (:status IS NULL OR status = :status) \
             ORDER BY created_at DESC, rank DESC LIMIT :limit"
        ))?,
        None => connection.prepare_cached(select_jobs!(
            "WHERE :owner IS NULL AND (created_at, rank) < (:created_at, :rank) \
             AND (expires_at IS NULL OR expires_at > :now) \
             AND (:status IS NULL OR status = :status) \
             ORDER BY created_at DESC, rank DESC LIMIT :limit"
        ))?,
    };
    let after = filter.get_after();
    let created_at = after.map_or(i64::MAX, |after| {
        after.unix_millis().try_into().unwrap_or(i64::MAX)
    });
    let limit = filter.get_limit();
    let mut rows = statement.query(named_params! {
        ":owner": filter.get_owner().as_ref().map(Owner::as_bytes),
        ":created_at": created_at,
        ":rank": after.map_or([0; 16], |after| after.id().to_bytes()),
        ":now": unix_now(),
        ":status": filter.get_status().map(Status::as_str),
        // One more shows whether there is another page.
        ":limit": limit as u64 + 1,
    })?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(JobRow::read(row)?.snapshot());
    }
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| has_more).map(Cursor::from);
    Ok(Page::new(jobs, next))
}
