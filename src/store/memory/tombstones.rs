use std::{collections::VecDeque, hash::BuildHasherDefault};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::IdHasher;
use crate::job::{JobId, Owner};

/// How many gone jobs are remembered; the oldest are forgotten first.
const LIMIT: usize = 65_536;

/// A single map would stop the reaper for milliseconds each time that it grows.
const SHARDS: usize = 128;

/// Remembers which jobs have expired, so that a late reader is told 410 (Gone) and not 404; and whose
/// they were, so that nobody else is told.
///
/// Only a reader of an unknown id and the reaper come here. Guards and the lock are held for one look-up,
/// insert or removal, one at a time, never across an await.
#[derive(Debug)]
pub(super) struct Tombstones {
    owners: DashMap<JobId, Option<Owner>, BuildHasherDefault<IdHasher>>,
    order: Mutex<VecDeque<JobId>>,
}

impl Default for Tombstones {
    fn default() -> Self {
        Self {
            owners: DashMap::with_hasher_and_shard_amount(Default::default(), SHARDS),
            order: Mutex::default(),
        }
    }
}

impl Tombstones {
    pub(super) fn insert(&self, id: JobId, owner: Option<Owner>) {
        if self.owners.insert(id, owner).is_some() {
            return;
        }
        let oldest = {
            let mut order = self.order.lock();
            let is_full = order.len() == LIMIT;
            let oldest = is_full.then(|| order.pop_front()).flatten();
            order.push_back(id);
            oldest
        };
        if let Some(oldest) = oldest {
            self.owners.remove(&oldest);
        }
    }

    pub(super) fn get(&self, id: JobId) -> Option<Option<Owner>> {
        self.owners.get(&id).map(|owner| *owner)
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
        assert_eq!(tombstones.owners.len(), LIMIT);
    }
}
