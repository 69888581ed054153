use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::{job::JobId, owner::Owner};

/// How many gone jobs are remembered; the oldest are forgotten first.
const LIMIT: usize = 65_536;

/// Remembers which jobs have expired, so that a late reader is told 410 (Gone) and not 404; and whose
/// they were, so that nobody else is told.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Held for one look-up or one insert, never across an await. Only a reader of an unknown id and
    /// the reaper come here.
    graves: Mutex<Graves>,
}

#[derive(Debug, Default)]
struct Graves {
    owners: HashMap<JobId, Option<Owner>>,
    order: VecDeque<JobId>,
}

impl Tombstones {
    pub(super) fn insert(&self, id: JobId, owner: Option<Owner>) {
        let mut graves = self.graves.lock();
        if graves.order.len() == LIMIT
            && let Some(oldest) = graves.order.pop_front()
        {
            graves.owners.remove(&oldest);
        }
        if graves.owners.insert(id, owner).is_none() {
            graves.order.push_back(id);
        }
    }

    pub(super) fn get(&self, id: JobId) -> Option<Option<Owner>> {
        self.graves.lock().owners.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_remembered_the_newest() {
        let tombstones = Tombstones::default();
        let ids: Vec<_> = (0..=LIMIT).map(|_| JobId::random()).collect();
        ids.iter().for_each(|&id| tombstones.insert(id, None));
        assert!(tombstones.get(ids[0]).is_none());
        assert!(ids[1..].iter().all(|&id| tombstones.get(id).is_some()));
        assert_eq!(tombstones.graves.lock().owners.len(), LIMIT);
    }
}
