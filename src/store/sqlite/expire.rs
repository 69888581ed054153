//! Removes what has expired, a few rows at a time.

use rusqlite::Connection;

use super::{
    clock::{as_millis, unix_now},
    error::SqliteError,
    step::Step,
};
use crate::JobId;

/// The number of jobs, keys, tombstones and deliveries that one transaction removes. It takes the
/// writer's thread a millisecond or two.
const BATCH_ROWS: usize = 64;

/// Returns `true` if jobs, keys, tombstones or settled deliveries have expired.
pub(super) fn has_expired(connection: &Connection) -> Result<bool, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM job WHERE expires_at <= ?1) \
         OR EXISTS (SELECT 1 FROM idempotency_key WHERE expires_at <= ?1) \
         OR EXISTS (SELECT 1 FROM tombstone WHERE expires_at <= ?1) \
         OR EXISTS (SELECT 1 FROM delivery WHERE expires_at <= ?1)",
    )?;
    Ok(statement.query_row([unix_now()], |row| row.get(0))?)
}

impl Step<'_> {
    /// Removes a batch of jobs, keys, tombstones and settled deliveries that have expired. Returns
    /// `true` if there may be more.
    pub(super) fn expire(&mut self) -> Result<bool, SqliteError> {
        let jobs = self.expire_jobs()?;
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM idempotency_key WHERE key IN \
             (SELECT key FROM idempotency_key WHERE expires_at <= ?1 LIMIT ?2)",
        )?;
        let keys = statement.execute((self.now, BATCH_ROWS))?;
        self.totals.keys = self.totals.keys.saturating_sub(keys as u64);
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM tombstone WHERE id IN \
             (SELECT id FROM tombstone WHERE expires_at <= ?1 LIMIT ?2)",
        )?;
        let tombstones = statement.execute((self.now, BATCH_ROWS))?;
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM delivery WHERE seq IN \
             (SELECT seq FROM delivery WHERE expires_at <= ?1 LIMIT ?2)",
        )?;
        let deliveries = statement.execute((self.now, BATCH_ROWS))?;
        Ok(jobs.max(keys).max(tombstones).max(deliveries) == BATCH_ROWS)
    }

    fn expire_jobs(&mut self) -> Result<usize, SqliteError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, id, owner FROM job WHERE expires_at <= ?1 LIMIT ?2")?;
        let expired = statement.query_map((self.now, BATCH_ROWS), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        let expired: Vec<(i64, String, Option<Vec<u8>>)> = expired.collect::<Result<_, _>>()?;
        let mut bury = self.connection.prepare_cached(
            "INSERT INTO tombstone (id, owner, expires_at) VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO NOTHING",
        )?;
        let retain = as_millis(self.shared.options.retain);
        let forgotten_at = self.now.saturating_add(retain);
        for (seq, id, owner) in &expired {
            bury.execute((id, owner, forgotten_at))?;
            let id: JobId = id.parse().map_err(SqliteError::unreadable("a job id"))?;
            self.remove(*seq, id)?;
        }
        Ok(expired.len())
    }
}
