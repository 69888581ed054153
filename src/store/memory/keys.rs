//! The idempotency keys that are remembered in memory.

use std::collections::BTreeSet;

use dashmap::{DashMap, Entry, OccupiedEntry, VacantEntry};
use parking_lot::Mutex;

use super::clock::Clock;
use crate::{
    job::{Fingerprint, JobId, Key},
    store::NewKey,
};

/// The default number of keys that are remembered.
const DEFAULT_MAX_KEYS: usize = 1_000_000;

/// The number of shards. A shard moves all its keys when it grows; with so many, that takes well
/// under a millisecond at a million keys.
const SHARDS: usize = 128;

/// The idempotency keys that are remembered, whatever has become of their jobs.
///
/// A key is in here from the accept of its job until it expires or is freed. Locks are taken in
/// this order: a shard of `jobs`, then `ledger`.
pub(super) struct KeyTable {
    jobs: DashMap<Key, KeyedJob>,
    /// Held for one insert or removal, never across an await.
    ledger: Mutex<KeyLedger>,
}

/// The job of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyedJob {
    pub(super) id: JobId,
    pub(super) fingerprint: Fingerprint,
    expiry: KeyExpiry,
}

/// The expiry of a key, in milliseconds since the epoch of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyExpiry {
    /// This long after the end of its job.
    AfterEnd(u64),
    At(u64),
}

#[derive(Debug)]
struct KeyLedger {
    /// The number of keys in the map.
    count: usize,
    max_count: usize,
    /// The keys of ended jobs in the order of their expiry.
    expiries: BTreeSet<(u64, Key)>,
}

/// The state of a key.
pub(super) enum KeyState<'a> {
    Free(FreeKey<'a>),
    Taken(KeyedJob),
}

/// The entry of a key that has no job. The map has no other one while this is held.
pub(super) enum FreeKey<'a> {
    Vacant(VacantEntry<'a, Key, KeyedJob>),
    Expired(OccupiedEntry<'a, Key, KeyedJob>),
}

impl KeyedJob {
    pub(super) fn new(id: JobId, key: &NewKey, clock: &Clock) -> Self {
        Self {
            id,
            fingerprint: key.fingerprint,
            expiry: KeyExpiry::AfterEnd(clock.key_retention(key.keep_for)),
        }
    }

    fn is_expired(&self, now: u64) -> bool {
        matches!(self.expiry, KeyExpiry::At(at) if at <= now)
    }
}

impl KeyTable {
    pub(super) fn new() -> Self {
        Self {
            jobs: DashMap::with_shard_amount(SHARDS),
            ledger: Mutex::new(KeyLedger {
                count: 0,
                max_count: DEFAULT_MAX_KEYS,
                expiries: BTreeSet::new(),
            }),
        }
    }

    pub(super) fn set_max(&self, keys: usize) {
        self.ledger.lock().max_count = keys;
    }

    pub(super) fn is_full(&self) -> bool {
        let ledger = self.ledger.lock();
        ledger.count >= ledger.max_count
    }

    /// Returns the job of a key, unless the key has expired at `now`.
    pub(super) fn get(&self, key: &Key, now: u64) -> Option<KeyedJob> {
        let keyed = *self.jobs.get(key)?;
        (!keyed.is_expired(now)).then_some(keyed)
    }

    /// Returns the job of a key, or the entry for a new one, which locks the key.
    pub(super) fn lock(&self, key: Key, now: u64) -> KeyState<'_> {
        match self.jobs.entry(key) {
            Entry::Vacant(entry) => KeyState::Free(FreeKey::Vacant(entry)),
            Entry::Occupied(entry) if entry.get().is_expired(now) => {
                KeyState::Free(FreeKey::Expired(entry))
            }
            Entry::Occupied(entry) => KeyState::Taken(*entry.get()),
        }
    }

    /// Counts a key that is about to be inserted. Returns `false` if there are too many.
    pub(super) fn count(&self, free: &FreeKey<'_>) -> bool {
        let mut ledger = self.ledger.lock();
        if let FreeKey::Expired(entry) = free {
            // The new key takes over the place of the old one.
            ledger.remove_expiry(*entry.key(), entry.get().expiry);
            return true;
        }
        if ledger.count >= ledger.max_count {
            return false;
        }
        ledger.count += 1;
        true
    }

    /// Starts the retention of a key: its job has ended at `now`.
    pub(super) fn job_ended(&self, key: Key, id: JobId, now: u64) {
        let Some(mut keyed) = self.jobs.get_mut(&key) else {
            return;
        };
        if let KeyExpiry::AfterEnd(time) = keyed.expiry
            && keyed.id == id
        {
            let at = now.saturating_add(time);
            keyed.expiry = KeyExpiry::At(at);
            self.ledger.lock().expiries.insert((at, key));
        }
    }

    /// Frees the key of a job, unless another job has it by now.
    pub(super) fn free(&self, key: Key, id: JobId) {
        if let Some((_, keyed)) = self.jobs.remove_if(&key, |_, keyed| keyed.id == id) {
            let mut ledger = self.ledger.lock();
            ledger.remove_expiry(key, keyed.expiry);
            ledger.release();
        }
    }

    /// Removes at most `max` keys that have expired at `now`.
    pub(super) fn reap(&self, now: u64, max: usize) {
        for _ in 0..max {
            let (at, key) = {
                let mut ledger = self.ledger.lock();
                match ledger.expiries.first() {
                    Some(&(at, key)) if at <= now => {
                        ledger.expiries.pop_first();
                        (at, key)
                    }
                    _ => return,
                }
            };
            let expiry = KeyExpiry::At(at);
            // A new job may have taken the key since.
            let removed = self.jobs.remove_if(&key, |_, keyed| keyed.expiry == expiry);
            if removed.is_some() {
                self.ledger.lock().release();
            }
        }
    }

    /// Returns when the next key expires, if any job with a key has ended.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.ledger.lock().expiries.first().map(|(at, _)| *at)
    }
}

impl FreeKey<'_> {
    pub(super) fn insert(self, keyed: KeyedJob) {
        match self {
            Self::Vacant(entry) => drop(entry.insert(keyed)),
            Self::Expired(mut entry) => drop(entry.insert(keyed)),
        }
    }
}

impl KeyLedger {
    fn remove_expiry(&mut self, key: Key, expiry: KeyExpiry) {
        if let KeyExpiry::At(at) = expiry {
            self.expiries.remove(&(at, key));
        }
    }

    /// Releases the place of one key.
    fn release(&mut self) {
        self.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use allocation_counter::measure;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const KEEP_FOR: u64 = 50;
    const MAX_KEYS: usize = 3;

    fn new_key(key: u8) -> NewKey {
        let fingerprint = Fingerprint::from_bytes([0; 16]);
        let mut new = NewKey::new(Key::from_bytes([key; 16]), fingerprint);
        new.keep_for = Some(Duration::from_millis(KEEP_FOR));
        new
    }

    #[derive(Debug, Clone, Copy)]
    enum KeyStep {
        Take(u8),
        EndJob(u8),
        Free(u8),
        Reap,
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = KeyStep> {
        prop_oneof![
            4 => (0_u8..5).prop_map(KeyStep::Take),
            3 => (0_u8..5).prop_map(KeyStep::EndJob),
            1 => (0_u8..5).prop_map(KeyStep::Free),
            1 => Just(KeyStep::Reap),
            2 => (1_u64..60).prop_map(KeyStep::Wait),
        ]
    }

    /// Takes a key for a new job. Returns the job that has it, or `None` if there are too many.
    fn take(table: &KeyTable, key: u8, now: u64) -> Option<JobId> {
        let (new, id) = (new_key(key), JobId::random());
        match table.lock(new.key, now) {
            KeyState::Taken(keyed) => Some(keyed.id),
            KeyState::Free(free) => {
                let is_counted = table.count(&free);
                is_counted.then(|| {
                    free.insert(KeyedJob::new(id, &new, &Clock::new(Duration::ZERO)));
                    id
                })
            }
        }
    }

    proptest! {
        #[test]
        fn table_behaves_as_its_model(steps in vec(steps(), 0..60)) {
            let table = KeyTable::new();
            table.set_max(MAX_KEYS);
            // The job of each key, and when the key expires.
            let mut model: HashMap<u8, (JobId, Option<u64>)> = HashMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    KeyStep::Take(key) => {
                        let is_free = |(_, expires): &(_, Option<u64>)| {
                            expires.is_some_and(|expires| expires <= now)
                        };
                        let known = model.get(&key).copied();
                        let has_room = known.is_some() || model.len() < MAX_KEYS;
                        let taken = take(&table, key, now);
                        prop_assert_eq!(taken.is_some(), has_room);
                        match (known, taken) {
                            (Some(known), _) if !is_free(&known) => {
                                prop_assert_eq!(taken, Some(known.0));
                            }
                            (_, Some(id)) => drop(model.insert(key, (id, None))),
                            (_, None) => {}
                        }
                    }
                    KeyStep::EndJob(key) => {
                        let (id, expires) = model.get(&key).copied().unzip();
                        let id = id.unwrap_or_else(JobId::random);
                        table.job_ended(new_key(key).key, id, now);
                        if expires.flatten().is_none() && let Some(entry) = model.get_mut(&key) {
                            entry.1 = Some(now + KEEP_FOR);
                        }
                    }
                    KeyStep::Free(key) => {
                        // Another job's end does not free it.
                        table.free(new_key(key).key, JobId::random());
                        if let Some((id, _)) = model.remove(&key) {
                            table.free(new_key(key).key, id);
                        }
                    }
                    KeyStep::Reap => {
                        table.reap(now, usize::MAX);
                        model.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
                    }
                    KeyStep::Wait(millis) => now += millis,
                }
                prop_assert_eq!(table.jobs.len(), model.len());
                prop_assert_eq!(table.is_full(), model.len() >= MAX_KEYS);
                let next = model.values().filter_map(|(_, expires)| *expires).min();
                prop_assert_eq!(table.next_expiry(), next);
            }
        }
    }

    /// Returns the heap bytes per key of a table with this many.
    fn bytes_per_key(keys: u64) -> u64 {
        let clock = Clock::new(Duration::ZERO);
        let table = KeyTable::new();
        let heap = measure(|| {
            for at in 0..keys {
                let key = Key::from_bytes(rand::random());
                let new = NewKey::new(key, Fingerprint::from_bytes([0; 16]));
                let id = JobId::random();
                let KeyState::Free(free) = table.lock(key, at) else {
                    panic!("the key is free");
                };
                assert!(table.count(&free));
                free.insert(KeyedJob::new(id, &new, &clock));
                table.job_ended(key, id, at);
            }
        });
        heap.bytes_current.unsigned_abs() / keys
    }

    #[test]
    fn key_takes_160_bytes_on_average() {
        // The maps double between the first two.
        let sizes = [3_000, 4_000, 5_000, 6_000].map(bytes_per_key);
        let average = sizes.iter().sum::<u64>() / 4;
        assert!(average <= 160, "{sizes:?}");
    }
}
