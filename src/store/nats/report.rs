//! Reports of a running call that are not written yet.

use std::time::SystemTime;

use crate::Progress;

/// Reports since the last write of a job's record, merged into one.
#[derive(Debug, Clone, Default)]
pub(super) struct PendingReport {
    pub(super) started: Option<SystemTime>,
    pub(super) progress: Option<Progress>,
    pub(super) estimated_finish: Option<SystemTime>,
}

impl PendingReport {
    pub(super) fn is_empty(&self) -> bool {
        self.started.is_none() && self.progress.is_none() && self.estimated_finish.is_none()
    }

    /// Fills in from an earlier report what this one does not set.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            started: self.started.or(earlier.started),
            progress: self.progress.or(earlier.progress),
            estimated_finish: self.estimated_finish.or(earlier.estimated_finish),
        }
    }
}
