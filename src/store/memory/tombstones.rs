//! The expired jobs that are remembered.

use std::{collections::VecDeque, hash::BuildHasherDefault};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::id_hasher::IdHasher;
use crate::job::{JobId, Owner};

/// The number of expired jobs that are remembered. The oldest are forgotten first.
const MAX_TOMBSTONES: usize = 65_536;

/// The number of shards. A single map would stop the reaper for milliseconds whenever it grows.
const SHARDS: usize = 128;

/// The expired jobs that are remembered, with their owners.
///
/// A late reader gets 410 (Gone) instead of 404, but only if it is the owner. Guards and the lock
/// are held for one look-up, insert or removal, one at a time, never across an await.
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
            let is_full = order.len() == MAX_TOMBSTONES;
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
    fn newest_tombstones_are_remembered() {
        let tombstones = Tombstones::default();
        let ids: Vec<_> = (0..=MAX_TOMBSTONES).map(|_| JobId::random()).collect();
        ids.iter().for_each(|&id| tombstones.insert(id, None));
        assert!(tombstones.get(ids[0]).is_none());
        assert!(ids[1..].iter().all(|&id| tombstones.get(id).is_some()));
        assert_eq!(tombstones.owners.len(), MAX_TOMBSTONES);
    }
}
