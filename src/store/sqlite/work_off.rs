//! Does the work in the backlog: writes reports, and returns the jobs of dropped claims.

use super::{
    backlog::Owed,
    cache::{CachedJob, UnwrittenReport},
    error::SqliteError,
    row::JobRow,
    step::Step,
};
use crate::JobId;

/// The maximum number of pieces of work in a transaction, so that they do not delay accepts.
const MAX_OWED: usize = 128;

impl Step<'_> {
    /// Does some of the work in the backlog. Returns `true` if some is left.
    pub(super) fn work_off(&mut self) -> Result<bool, SqliteError> {
        let (owed, is_left) = self.shared.backlog.take(MAX_OWED);
        // All of it is noted before the first write, so that a failure puts back all of it.
        for owed in owed {
            match owed {
                Owed::Report(job) => {
                    let report = job.take_report();
                    self.effects.reports.push((job, report));
                }
                Owed::Return(id, claim) => self.effects.returns.push((id, claim)),
            }
        }
        for (job, report) in self.effects.reports.clone() {
            skip_unreadable(job.id, self.write_report(&job, report))?;
        }
        for (id, claim) in self.effects.returns.clone() {
            skip_unreadable(id, self.drop_claim(id, claim))?;
        }
        Ok(is_left)
    }

    fn write_report(
        &mut self,
        job: &CachedJob,
        report: UnwrittenReport,
    ) -> Result<(), SqliteError> {
        let Some(claim) = job.claim() else {
            return Ok(());
        };
        let Some(mut row) = self.load_held(job.id, claim)? else {
            return Ok(());
        };
        let shown = |row: &JobRow| {
            let (title, progress) = (row.title.clone(), row.progress.clone());
            (row.revision, title, progress, row.estimated_finish_at)
        };
        let before = shown(&row);
        if let Some(at) = report.started {
            row.start(at);
        }
        if let Some(progress) = report.progress {
            row.set_progress(progress);
        }
        if report.estimated_finish.is_some() {
            row.estimated_finish_at = report.estimated_finish;
        }
        if before != shown(&row) {
            row.revision = before.0 + 1;
            row.save_report(self.connection)?;
            self.publish(row);
        }
        Ok(())
    }
}

/// Gives up on a row that cannot be decoded. The next attempt would fail too, and keep all other
/// work waiting.
fn skip_unreadable(id: JobId, done: Result<(), SqliteError>) -> Result<(), SqliteError> {
    match done {
        Err(error @ SqliteError::Unreadable { .. }) => {
            tracing::error!(%error, %id, "failed to write a report, or to return a job");
            Ok(())
        }
        done => done,
    }
}
