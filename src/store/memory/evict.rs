//! Evicts ended jobs to make room in the budget.

use super::table::JobTable;
use crate::limit::{Charge, Purpose};

impl JobTable {
    /// Takes bytes of the budget.
    ///
    /// For a job, it evicts the jobs that ended first if that makes room. It passes over results
    /// that are being read, since their bytes would stay in use.
    pub(super) fn reserve(&self, bytes: usize, purpose: Purpose) -> Option<Charge> {
        loop {
            if let Some(charge) = self.budget().reserve(bytes, purpose) {
                return Some(charge);
            }
            if !self.budget().has_evictable(bytes, purpose) {
                return None;
            }
            let first = self.order().lock().pop()?;
            if !self.readings().pass_over(first) {
                self.retire(first);
            }
        }
    }
}
