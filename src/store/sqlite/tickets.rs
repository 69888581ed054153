//! The requests that this process has taken and not claimed yet.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::JobId;

/// The requests that this process has taken and not claimed yet, so that it takes none twice.
///
/// The lock is held for an insert or a removal.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<HashSet<JobId>>);

impl Tickets {
    /// Returns `false` if the request has been taken.
    pub(super) fn insert(&self, id: JobId) -> bool {
        self.0.lock().insert(id)
    }

    pub(super) fn remove(&self, id: JobId) {
        self.0.lock().remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
