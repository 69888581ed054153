//! Ends a job from outside its call: cancels or deletes it.

use super::{error::SqliteError, lookup::find_tombstone, step::Step};
use crate::{
    ErrorCode, Event, JobId,
    store::{KeyOutcome, Lookup, Revisions},
};

impl Step<'_> {
    /// Cancels an unfinished job, and returns the job afterwards.
    pub(super) fn cancel(
        &mut self,
        id: JobId,
        revisions: &Revisions,
    ) -> Result<Option<Lookup>, SqliteError> {
        let Some(mut row) = self.load(id)? else {
            return Ok(Some(find_tombstone(self.connection, id)?));
        };
        let found = row.lookup(self.now);
        let Lookup::Found(job) = &found else {
            return Ok(Some(found));
        };
        if !revisions.contains(job.revision) {
            return Ok(None);
        }
        if row.is_ended() {
            return Ok(Some(found));
        }
        let canceled = Event::NoResponse(ErrorCode::Canceled);
        self.end(&mut row, canceled, KeyOutcome::Keep)?;
        let job = row.snapshot();
        self.save(row)?;
        Ok(Some(Lookup::Found(Box::new(job))))
    }

    /// Deletes a job. An unfinished job is canceled first.
    pub(super) fn forget(
        &mut self,
        id: JobId,
        revisions: &Revisions,
    ) -> Result<Option<Lookup>, SqliteError> {
        let before = self.load(id)?;
        let canceled = self.cancel(id, revisions)?;
        if let (Some(row), Some(Lookup::Found(_))) = (before, &canceled) {
            if let Some(key) = row.key {
                self.free_key(&key, id)?;
            }
            self.remove(row.seq, id)?;
        }
        Ok(canceled)
    }
}
