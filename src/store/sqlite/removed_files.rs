//! The files that no row names any more.

use std::time::{Duration, Instant};

use super::bodies::BodyRoot;

/// The time after which the removal of files pauses. A large file may take longer.
const REMOVAL_TIME: Duration = Duration::from_millis(10);

/// The names of files that no row names any more, and that are still there.
///
/// Removing a large file takes long, so it happens outside of the turn, and between transactions.
/// If the process ends before, a sweep removes the rest.
#[derive(Debug, Default)]
pub(super) struct RemovedFiles(Vec<String>);

impl RemovedFiles {
    pub(super) fn add(&mut self, names: Vec<String>) {
        self.0.extend(names);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes at least one of the files.
    pub(super) fn remove_some(&mut self, root: &BodyRoot) {
        let begun = Instant::now();
        while let Some(name) = self.0.pop() {
            root.remove(&name);
            if begun.elapsed() >= REMOVAL_TIME {
                return;
            }
        }
    }
}
