//! Evicts ended jobs to make room in the budget.

use super::table::JobTable;
use crate::limit::{Charge, Purpose};

impl JobTable {
    /// Takes bytes of the budget, and evicts the jobs that ended first if that is necessary.
    pub(super) fn reserve(&self, bytes: usize, purpose: Purpose) -> Option<Charge> {
        loop {
            if let Some(charge) = self.budget().reserve(bytes, purpose) {
                return Some(charge);
            }
            if bytes > self.budget().limit() {
                return None;
            }
            let first = self.order().lock().pop()?;
            self.retire(first);
        }
    }
}
