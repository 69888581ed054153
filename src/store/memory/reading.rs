//! The results that clients are reading.

use dashmap::{DashMap, Entry};

use crate::{job::JobId, limit::Budget};

/// The results that clients are reading.
///
/// The bytes of such a result count as a replay, once for all its readers, until the last reader
/// has dropped them. So slow readers take no room from jobs, even if the result is deleted.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// A guard is held for one look-up or change, together with the counts of the budget, and while
    /// no other lock is.
    jobs: DashMap<JobId, ReadJob>,
}

#[derive(Debug)]
struct ReadJob {
    readers: usize,
    /// The bytes that count as a replay.
    bytes: usize,
    /// Set if the job has left the order of ends because it could not be evicted.
    is_passed_over: bool,
}

impl Readings {
    /// Marks a job as passed over. Returns `false` if it has no reader.
    pub(super) fn pass_over(&self, id: JobId) -> bool {
        self.jobs.get_mut(&id).is_some_and(|mut job| {
            job.is_passed_over = true;
            true
        })
    }

    /// Adds a reader of a job of so many bytes. Returns `false` if replays have no room for them.
    pub(super) fn begin(&self, id: JobId, bytes: usize, budget: &Budget) -> bool {
        match self.jobs.entry(id) {
            Entry::Occupied(mut reading) => reading.get_mut().readers += 1,
            Entry::Vacant(entry) => {
                if !budget.begin_replay(bytes) {
                    return false;
                }
                entry.insert(ReadJob {
                    readers: 1,
                    bytes,
                    is_passed_over: false,
                });
            }
        }
        true
    }

    /// Removes a reader. Returns `true` if it was the last one of a job that was passed over.
    pub(super) fn end(&self, id: JobId, budget: &Budget) -> bool {
        let Entry::Occupied(mut reading) = self.jobs.entry(id) else {
            return false;
        };
        reading.get_mut().readers -= 1;
        if reading.get().readers > 0 {
            return false;
        }
        let job = reading.remove();
        budget.end_replay(job.bytes);
        job.is_passed_over
    }
}
