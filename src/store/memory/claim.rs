//! The right to end a job in memory.

use std::{fmt, sync::Arc};

use super::{
    reaper,
    table::JobTable,
    unfinished::{Ending, UnfinishedJob},
};
use crate::{
    job::ErrorCode,
    limit::{Charge, Purpose},
};

/// The right to end a job in memory.
///
/// If the job has not ended, dropping this ends it as [`ErrorCode::Shutdown`]. That happens when
/// its task is dropped with its runtime.
pub struct MemoryClaim {
    table: Arc<JobTable>,
    job: Arc<UnfinishedJob>,
    /// The bytes that are charged for the request, which the call may keep beyond the end of its
    /// job.
    request_bytes: usize,
}

impl MemoryClaim {
    pub(super) fn new(table: Arc<JobTable>, job: Arc<UnfinishedJob>, request: Charge) -> Self {
        Self {
            table,
            job,
            request_bytes: request.into_parts().1,
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
        let budget = self.table.budget();
        budget.release(self.request_bytes, Purpose::Accepted);
    }
}

impl fmt::Debug for MemoryClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryClaim")
            .field(&self.job.creation.id)
            .finish()
    }
}
