//! The right to end a job in memory.

use std::{fmt, sync::Arc};

use super::{
    reaper,
    table::JobTable,
    unfinished::{Ending, UnfinishedJob},
};
use crate::{job::ErrorCode, limit::Charge};

/// The right to end a job in memory.
///
/// If the job has not ended, dropping this ends it as [`ErrorCode::Shutdown`]. That happens when
/// its task is dropped with its runtime.
pub struct MemoryClaim {
    table: Arc<JobTable>,
    job: Arc<UnfinishedJob>,
    /// The charge of the request, which the call may keep beyond the end of its job.
    _request: Charge,
}

impl MemoryClaim {
    pub(super) fn new(table: Arc<JobTable>, job: Arc<UnfinishedJob>, request: Charge) -> Self {
        Self {
            table,
            job,
            _request: request,
        }
    }

    pub(super) fn job(&self) -> &Arc<UnfinishedJob> {
        &self.job
    }
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        let mut shutdown = Ending::without_response(ErrorCode::Shutdown);
        shutdown.key = self.job.dropped_key_outcome();
        reaper::end(&self.table, &self.job, shutdown);
    }
}

impl fmt::Debug for MemoryClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryClaim")
            .field(&self.job.creation.id)
            .finish()
    }
}
