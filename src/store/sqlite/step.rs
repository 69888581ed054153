//! One step of a transaction, and the effects that follow its commit.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::{
    bodies::BodyFile,
    cache::{CachedJob, UnwrittenReport},
    clock::Millis,
    error::SqliteError,
    output::FlushedOutput,
    row::JobRow,
    shared::Shared,
};
use crate::{
    ErrorCode, Event, JobId,
    store::{Key, KeyOutcome},
};

/// One step of a transaction.
pub(super) struct Step<'a> {
    pub(super) connection: &'a Connection,
    pub(super) shared: &'a Shared,
    pub(super) now: Millis,
    pub(super) totals: &'a mut Totals,
    pub(super) effects: &'a mut Effects,
    /// Set if the file has reached its maximum size.
    pub(super) is_full: bool,
}

/// The counts that the file keeps, which would take long to compute from its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) unfinished: u64,
    pub(super) keys: u64,
    /// The bytes of all files that rows name.
    pub(super) file_bytes: u64,
}

/// The effects of a transaction outside of the file. They follow its commit.
#[derive(Default)]
pub(super) struct Effects {
    /// The jobs that have changed, in order.
    pub(super) changes: Vec<Change>,
    /// The files that new rows name.
    pub(super) added_files: Vec<Arc<BodyFile>>,
    /// The names of files that no row names any more.
    pub(super) removed_files: Vec<String>,
    /// Set if a request waits for a worker.
    pub(super) has_work: bool,
    /// Set if deliveries have become due.
    pub(super) has_due_deliveries: bool,
    /// The reports that were written. They are put back after a failure, like `returns`.
    pub(super) reports: Vec<(Arc<CachedJob>, UnwrittenReport)>,
    /// The dropped claims whose jobs were returned.
    pub(super) returns: Vec<(JobId, i64)>,
    /// The outputs that were taken from the queue.
    pub(super) outputs: Vec<Arc<FlushedOutput>>,
}

/// A change of a job.
pub(super) enum Change {
    /// This process holds the job under a claim. Other processes need not know.
    Held(Box<JobRow>, i64),
    Revised(Box<JobRow>),
    /// The output of run `run` has grown to so many bytes.
    Extended {
        output: Arc<FlushedOutput>,
        run: u32,
        length: u64,
    },
    Removed(JobId),
}

impl Change {
    /// Returns the job, if other processes must learn of the change.
    pub(super) fn shared(&self) -> Option<JobId> {
        match self {
            Self::Held(..) => None,
            Self::Revised(row) => Some(row.id),
            Self::Extended { output, .. } => Some(output.id),
            Self::Removed(id) => Some(*id),
        }
    }
}

impl Totals {
    pub(super) fn load(connection: &Connection) -> Result<Self, SqliteError> {
        let mut statement =
            connection.prepare_cached("SELECT unfinished, keys, file_bytes FROM totals")?;
        Ok(statement.query_row([], |row| {
            Ok(Self {
                unfinished: row.get(0)?,
                keys: row.get(1)?,
                file_bytes: row.get(2)?,
            })
        })?)
    }

    pub(super) fn save(&self, connection: &Connection) -> Result<(), SqliteError> {
        let mut statement = connection
            .prepare_cached("UPDATE totals SET unfinished = ?1, keys = ?2, file_bytes = ?3")?;
        statement.execute([self.unfinished, self.keys, self.file_bytes])?;
        Ok(())
    }
}

impl Step<'_> {
    /// Reads a job's row.
    pub(super) fn load(&self, id: JobId) -> Result<Option<JobRow>, SqliteError> {
        JobRow::load(self.connection, id)
    }

    /// Reads the row of a job that a claim holds. Returns `None` if the claim is lost.
    pub(super) fn load_held(&self, id: JobId, claim: i64) -> Result<Option<JobRow>, SqliteError> {
        Ok(self.load(id)?.filter(|row| row.is_held_by(claim)))
    }

    /// Puts a claim in memory once it is committed, in its place among the changes of the job. A
    /// later step of the same transaction may already end it.
    pub(super) fn hold(&mut self, row: JobRow, claim: i64) {
        let held = Change::Held(Box::new(row), claim);
        self.effects.changes.push(held);
    }

    /// Writes a job's row, and publishes it.
    pub(super) fn save(&mut self, row: JobRow) -> Result<(), SqliteError> {
        row.save(self.connection)?;
        self.publish(row);
        Ok(())
    }

    /// Publishes a row that has been written.
    pub(super) fn publish(&mut self, row: JobRow) {
        self.effects.has_work |= row.process.is_none() && !row.is_ended();
        self.effects.changes.push(Change::Revised(Box::new(row)));
    }

    /// Ends a job, and records its deliveries. Its request is removed, and the part of a response
    /// that broke off is kept.
    pub(super) fn end(
        &mut self,
        row: &mut JobRow,
        event: Event,
        key: KeyOutcome,
    ) -> Result<(), SqliteError> {
        if let Event::NoResponse(_) = event {
            row.response = self.partial(row.seq)?;
        }
        row.end(event, self.now);
        self.totals.unfinished = self.totals.unfinished.saturating_sub(1);
        self.record_deliveries(row)?;
        self.remove_body(
            "DELETE FROM request WHERE job = ?1 RETURNING file, length, FALSE",
            row.seq,
        )?;
        match (row.key, key) {
            (Some(key), KeyOutcome::Keep) => {
                let expires_at = self.now.saturating_add(row.key_kept_for);
                let mut statement = self.connection.prepare_cached(
                    "UPDATE idempotency_key SET expires_at = ?1 WHERE key = ?2 AND job = ?3",
                )?;
                statement.execute((expires_at, key.as_bytes(), row.id.to_string()))?;
                Ok(())
            }
            (Some(key), KeyOutcome::Release) => self.free_key(&key, row.id),
            (None, _) => Ok(()),
        }
    }

    /// Ends a job without a response. The outcomes of its key decide whether the key is kept.
    pub(super) fn end_without_response(
        &mut self,
        row: &mut JobRow,
        code: ErrorCode,
    ) -> Result<(), SqliteError> {
        let key = if row.outcomes.keeps(code.status()) {
            KeyOutcome::Keep
        } else {
            KeyOutcome::Release
        };
        self.end(row, Event::NoResponse(code), key)
    }

    /// Removes a key, if it is the key of this job.
    pub(super) fn free_key(&mut self, key: &Key, id: JobId) -> Result<(), SqliteError> {
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM idempotency_key WHERE key = ?1 AND job = ?2")?;
        let removed = statement.execute((key.as_bytes(), id.to_string()))?;
        self.totals.keys = self.totals.keys.saturating_sub(removed as u64);
        Ok(())
    }

    /// Removes a job that has ended, with its response.
    pub(super) fn remove(&mut self, seq: i64, id: JobId) -> Result<(), SqliteError> {
        self.remove_response(seq)?;
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM job WHERE seq = ?1")?;
        statement.execute([seq])?;
        self.effects.changes.push(Change::Removed(id));
        Ok(())
    }

    /// Removes the response of a job, or the part of one.
    pub(super) fn remove_response(&mut self, seq: i64) -> Result<(), SqliteError> {
        let delete =
            "DELETE FROM response WHERE job = ?1 RETURNING file, length - file_start, body IS NULL";
        let may_have_parts = self.remove_body(delete, seq)?;
        if may_have_parts {
            let mut statement = self
                .connection
                .prepare_cached("DELETE FROM part WHERE job = ?1")?;
            statement.execute([seq])?;
        }
        Ok(())
    }

    /// Counts a file that a new row names.
    pub(super) fn add_file(&mut self, file: &Arc<BodyFile>, length: u64) {
        self.totals.file_bytes += length;
        self.effects.added_files.push(file.clone());
    }

    /// Counts that a row names a file no longer.
    pub(super) fn remove_file(&mut self, name: String, length: u64) {
        self.totals.file_bytes = self.totals.file_bytes.saturating_sub(length);
        self.effects.removed_files.push(name);
    }

    /// Removes a row, and its file. Returns the third column that `delete` returns, or `false`.
    fn remove_body(&mut self, delete: &str, seq: i64) -> Result<bool, SqliteError> {
        let mut statement = self.connection.prepare_cached(delete)?;
        let removed = statement.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let removed: Option<(Option<String>, u64, bool)> = removed.optional()?;
        let Some((file, length, flag)) = removed else {
            return Ok(false);
        };
        if let Some(file) = file {
            self.remove_file(file, length);
        }
        Ok(flag)
    }
}
