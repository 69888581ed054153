//! Writes what running calls report.

use super::{error::SqliteError, step::Step};

/// The maximum number of reports in a transaction, so that they do not delay accepts.
const MAX_REPORTS: usize = 128;

impl Step<'_> {
    /// Writes some of the pending reports. Returns `true` if some are left.
    pub(super) fn write_reports(&mut self) -> Result<bool, SqliteError> {
        let cache = &self.shared.cache;
        let mut reported = cache.take_reported();
        let left = reported.split_off(reported.len().min(MAX_REPORTS));
        let is_left = !left.is_empty();
        for job in left {
            cache.add_reported(job);
        }
        for job in reported {
            let report = job.take_report();
            self.effects.reports.push((job.clone(), report.clone()));
            let Some(claim) = job.claim() else {
                continue;
            };
            let Some(mut row) = self.load_held(job.id, claim)? else {
                continue;
            };
            let before = (row.revision, row.progress.clone(), row.estimated_finish_at);
            if let Some(at) = report.started {
                row.start(at);
            }
            if let Some(progress) = report.progress {
                row.progress = progress;
            }
            if report.estimated_finish.is_some() {
                row.estimated_finish_at = report.estimated_finish;
            }
            let after = (row.revision, row.progress.clone(), row.estimated_finish_at);
            if before != after {
                row.revision = before.0 + 1;
                row.save_report(self.connection)?;
                self.publish(row);
            }
        }
        Ok(is_left)
    }
}
