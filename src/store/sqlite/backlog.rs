//! Work that calls leave to the writer's thread: their reports, and claims that they dropped.

use std::{mem, sync::Arc};

use parking_lot::Mutex;

use super::cache::CachedJob;
use crate::JobId;

/// Work that the writer's thread must do in the end, whatever fails meanwhile.
///
/// A transaction takes it, and puts it back if it fails.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Held for a push or a split.
    owed: Mutex<Vec<Owed>>,
}

/// A piece of such work.
#[derive(Debug)]
pub(super) enum Owed {
    /// The pending report of a job. The job is in the backlog once.
    Report(Arc<CachedJob>),
    /// The return of a job whose claim was dropped before its end.
    Return(JobId, i64),
}

impl Backlog {
    /// Adds work. Returns `true` if there was none.
    pub(super) fn add(&self, owed: Owed) -> bool {
        let mut all = self.owed.lock();
        all.push(owed);
        all.len() == 1
    }

    /// Takes up to `max` pieces of work, the oldest first. Also returns `true` if some are left.
    pub(super) fn take(&self, max: usize) -> (Vec<Owed>, bool) {
        let mut all = self.owed.lock();
        let taken = all.len().min(max);
        let left = all.split_off(taken);
        let is_left = !left.is_empty();
        (mem::replace(&mut *all, left), is_left)
    }
}
