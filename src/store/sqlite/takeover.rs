//! Takes over the jobs and the leased deliveries of dead processes.

use std::time::Duration;

use super::{
    clock::as_millis,
    dequeue::MAX_DELAY,
    error::SqliteError,
    row::{JobRow, select_jobs},
    step::Step,
};
use crate::ErrorCode;

/// The number of jobs that one transaction takes over.
const BATCH_ROWS: usize = 100;

impl Step<'_> {
    /// Takes jobs from a dead process. Returns `true` if it may have more. Otherwise the file does
    /// not know the process any more.
    ///
    /// A request that was queued, or may run again, waits for a worker. Any other job ends as lost.
    pub(super) fn take_over(&mut self, process: i64) -> Result<bool, SqliteError> {
        let mut statement = self
            .connection
            .prepare_cached(select_jobs!("WHERE process = ?1 LIMIT ?2"))?;
        let mut rows = statement.query((process, BATCH_ROWS))?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            jobs.push(JobRow::read(row)?);
        }
        drop(rows);
        let has_more = jobs.len() == BATCH_ROWS;
        for row in jobs {
            self.take_over_job(row)?;
        }
        if !has_more {
            self.release_leases(process)?;
            let mut statement = self
                .connection
                .prepare_cached("DELETE FROM process WHERE number = ?1")?;
            statement.execute([process])?;
        }
        Ok(has_more)
    }

    /// Makes the deliveries due that a process has leased.
    fn release_leases(&mut self, process: i64) -> Result<(), SqliteError> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE delivery SET due_at = ?1, process = NULL WHERE process = ?2")?;
        let released = statement.execute((self.now, process))?;
        self.effects.has_due_deliveries |= released > 0;
        Ok(())
    }

    fn take_over_job(&mut self, mut row: JobRow) -> Result<(), SqliteError> {
        let options = &self.shared.options;
        if !row.has_begun {
            row.release(false);
            return self.save(row);
        }
        // A first call that may run again is reported as started a moment later. So one without a
        // start has probably not begun. At worst, one death is not counted: a rerun writes its
        // start before it begins.
        row.deaths += u32::from(row.started_at.is_some());
        if row.may_rerun && row.deaths < options.attempts {
            row.release(true);
            row.not_before = self.now + as_millis(self.rerun_delay(row.deaths));
        } else {
            tracing::warn!(id = %row.id, attempts = row.attempts, "ended a job as lost");
            self.end_without_response(&mut row, ErrorCode::Lost)?;
        }
        self.save(row)
    }

    /// Returns the delay before a request runs again after so many deaths.
    fn rerun_delay(&self, deaths: u32) -> Duration {
        let Some(doublings) = deaths.checked_sub(2) else {
            return Duration::ZERO;
        };
        let delay = self.shared.options.retry_delay;
        delay.saturating_mul(1 << doublings.min(16)).min(MAX_DELAY)
    }
}
