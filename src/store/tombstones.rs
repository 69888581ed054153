use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use crate::job::JobId;

/// How many gone jobs are remembered; the oldest are forgotten first.
const LIMIT: usize = 65_536;

/// Remembers which jobs have expired, so that a late reader is told 410 (Gone) and not 404.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Held for one look-up or one insert, never across an await. Only a reader of an unknown id and
    /// the reaper come here.
    graves: Mutex<Graves>,
}

#[derive(Debug, Default)]
struct Graves {
    ids: HashSet<JobId>,
    order: VecDeque<JobId>,
}

impl Tombstones {
    pub(super) fn insert(&self, id: JobId) {
        let mut graves = self.graves.lock();
        if graves.order.len() == LIMIT
            && let Some(oldest) = graves.order.pop_front()
        {
            graves.ids.remove(&oldest);
        }
        if graves.ids.insert(id) {
            graves.order.push_back(id);
        }
    }

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.graves.lock().ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_remembered_the_newest() {
        let tombstones = Tombstones::default();
        let ids: Vec<_> = (0..=LIMIT).map(|_| JobId::random()).collect();
        ids.iter().for_each(|&id| tombstones.insert(id));
        assert!(!tombstones.contains(ids[0]));
        assert!(ids[1..].iter().all(|&id| tombstones.contains(id)));
        assert_eq!(tombstones.graves.lock().ids.len(), LIMIT);
    }
}
