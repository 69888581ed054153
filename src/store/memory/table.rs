//! The maps of the jobs in memory.

use std::{collections::BTreeSet, hash::BuildHasherDefault, sync::Arc, time::Duration};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::{
    clock::Clock,
    ended::EndedJob,
    id_hasher::IdHasher,
    keys::{KeyState, KeyTable, KeyedJob},
    order::EndOrder,
    outbox::MemoryOutbox,
    reading::Readings,
    tombstones::Tombstones,
    unfinished::{Ending, UnfinishedJob},
};
use crate::{
    job::{Cursor, JobId, Key, Owner, Snapshot},
    limit::{Budget, Charge, Purpose},
    store::{Delivery, KeyOutcome, Lookup, NewJob, NewKey},
};

/// The number of shards of ended jobs. A shard moves all its jobs when it grows; with so many, that
/// takes well under a millisecond at a million jobs.
const ENDED_SHARDS: usize = 1024;

/// The number of shards of unfinished jobs. There are few such jobs.
const UNFINISHED_SHARDS: usize = 64;

/// The number of expired keys that each new key removes at most.
const REAPED_KEYS: usize = 8;

/// The maps of the jobs in memory.
///
/// Map guards never leave this folder. Each is held for one look-up, insert or removal, or for one
/// job of a list; what is found is cloned. Several locks are taken in this order: `keys`,
/// `unfinished` or `owned`, a job's own or `order`, `ended`.
pub(super) struct JobTable {
    /// Jobs that have not ended, and for a moment those that just have. A new job goes into this
    /// small map, however many have ended.
    unfinished: DashMap<JobId, Arc<UnfinishedJob>, BuildHasherDefault<IdHasher>>,
    /// A job is in here before it leaves `unfinished`, so a look-up there and then here finds it.
    ended: DashMap<EndedJob, (), BuildHasherDefault<IdHasher>>,
    keys: KeyTable,
    owned: DashMap<Owner, BTreeSet<Cursor>>,
    /// The ended jobs in the order of their ends. Held for one push, pop or look at the first.
    order: Mutex<EndOrder>,
    tombstones: Tombstones,
    readings: Readings,
    outbox: Arc<MemoryOutbox>,
    budget: Budget,
    clock: Clock,
}

/// The result of inserting a job.
pub(super) enum Inserted {
    /// The job, and the charge of its request.
    New(Arc<UnfinishedJob>, Charge),
    Joined(Box<Snapshot>),
    KeyReused,
    /// The key's job has expired or was evicted.
    Gone,
    Full,
}

/// A job that was found.
pub(super) enum FoundJob {
    Unfinished(Arc<UnfinishedJob>),
    Ended(EndedJob),
}

impl FoundJob {
    fn owner(&self) -> Option<Owner> {
        match self {
            Self::Unfinished(job) => job.owner(),
            Self::Ended(job) => job.owner(),
        }
    }

    fn key(&self) -> Option<Key> {
        match self {
            Self::Unfinished(job) => job.key(),
            Self::Ended(job) => job.key(),
        }
    }

    fn id(&self) -> JobId {
        match self {
            Self::Unfinished(job) => job.creation.id,
            Self::Ended(job) => job.creation().id,
        }
    }
}

impl JobTable {
    pub(super) fn new(retain: Duration, budget: Budget) -> Self {
        Self {
            unfinished: DashMap::with_hasher_and_shard_amount(
                Default::default(),
                UNFINISHED_SHARDS,
            ),
            ended: DashMap::with_hasher_and_shard_amount(Default::default(), ENDED_SHARDS),
            keys: KeyTable::new(),
            owned: DashMap::new(),
            order: Mutex::default(),
            tombstones: Tombstones::default(),
            readings: Readings::default(),
            outbox: Arc::new(MemoryOutbox::new(budget.clone())),
            budget,
            clock: Clock::new(retain),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.unfinished.len() + self.ended.len()
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// Returns the ended jobs in the order of their ends.
    pub(super) fn order(&self) -> &Mutex<EndOrder> {
        &self.order
    }

    /// Returns the deliveries.
    pub(super) fn outbox(&self) -> &Arc<MemoryOutbox> {
        &self.outbox
    }

    /// Returns the results that are being read.
    pub(super) fn readings(&self) -> &Readings {
        &self.readings
    }

    /// Returns a job that has not expired.
    pub(super) fn find(&self, id: JobId) -> Option<FoundJob> {
        self.find_at(id, self.clock.now())
    }

    /// Returns a job that has not expired at `now`.
    fn find_at(&self, id: JobId, now: u64) -> Option<FoundJob> {
        let found = self.find_any(id)?;
        let is_expired = match &found {
            // If it has ended, it has just done so.
            FoundJob::Unfinished(_) => false,
            FoundJob::Ended(job) => job.is_expired(&self.clock, now),
        };
        (!is_expired).then_some(found)
    }

    /// Returns a job that was found, as it is at `now`, or `None` if it has been removed since.
    pub(super) fn snapshot(&self, found: &FoundJob, now: u64) -> Option<Snapshot> {
        match found {
            // A job that has just ended may have expired at once.
            FoundJob::Unfinished(job) => job.snapshot(now).or_else(|| {
                let ended = self.find_ended(found.id())?;
                let is_kept = !ended.is_expired(&self.clock, now);
                is_kept.then(|| ended.snapshot(&self.clock, now))
            }),
            FoundJob::Ended(job) => Some(job.snapshot(&self.clock, now)),
        }
    }

    pub(super) fn find_ended(&self, id: JobId) -> Option<EndedJob> {
        self.ended.get(&id).map(|job| job.key().clone())
    }

    pub(super) fn ended_snapshot(&self, id: JobId) -> Option<Snapshot> {
        let job = self.find_ended(id)?;
        Some(job.snapshot(&self.clock, self.clock.now()))
    }

    pub(super) fn find_unfinished(&self, id: JobId) -> Option<Arc<UnfinishedJob>> {
        self.unfinished.get(&id).map(|job| job.clone())
    }

    /// Returns a job, expired or not.
    fn find_any(&self, id: JobId) -> Option<FoundJob> {
        if let Some(job) = self.find_unfinished(id) {
            return Some(FoundJob::Unfinished(job));
        }
        self.find_ended(id).map(FoundJob::Ended)
    }

    /// Returns what is known of an id.
    pub(super) fn lookup(&self, id: JobId) -> Lookup {
        let now = self.clock.now();
        let found = self.find_at(id, now);
        if let Some(job) = found.and_then(|found| self.snapshot(&found, now)) {
            return Lookup::Found(Box::new(job));
        }
        // Expired and not yet reaped, or reaped and remembered.
        let expired = self.find_any(id).map(|found| found.owner());
        match expired.or_else(|| self.tombstones.get(id)) {
            Some(owner) => Lookup::Gone(owner),
            None => Lookup::Unknown,
        }
    }

    /// Calls `visit` for every unfinished job, in no order.
    pub(super) fn for_each_unfinished(&self, mut visit: impl FnMut(&UnfinishedJob)) {
        // No guard is held while a job's own lock is taken.
        let jobs: Vec<_> = self.unfinished.iter().map(|job| job.clone()).collect();
        jobs.iter().for_each(|job| visit(job));
    }

    /// Calls `visit` for every ended job that has not expired, in no order.
    pub(super) fn for_each_ended(&self, mut visit: impl FnMut(&EndedJob)) {
        let now = self.clock.now();
        for entry in &self.ended {
            if !entry.key().is_expired(&self.clock, now) {
                visit(entry.key());
            }
        }
    }

    /// Returns at most `max` positions of an owner's jobs, from the newest or after a position on.
    pub(super) fn owned(&self, owner: Owner, before: Option<Cursor>, max: usize) -> Vec<Cursor> {
        match (self.owned.get(&owner), before) {
            (None, _) => Vec::new(),
            (Some(owned), None) => owned.iter().rev().take(max).copied().collect(),
            (Some(owned), Some(before)) => owned.range(..before).rev().take(max).copied().collect(),
        }
    }

    /// Returns what a request joins whose key has a job.
    fn join(&self, keyed: &KeyedJob, key: &NewKey, now: u64) -> Inserted {
        if keyed.fingerprint != key.fingerprint {
            return Inserted::KeyReused;
        }
        let found = self.find_at(keyed.id, now);
        match found.and_then(|found| self.snapshot(&found, now)) {
            Some(job) => Inserted::Joined(Box::new(job)),
            None => Inserted::Gone,
        }
    }

    /// Inserts a job, or finds the job of its key.
    pub(super) fn accept(&self, new: &NewJob) -> Inserted {
        if let Some(key) = &new.key {
            return self.accept_keyed(new, key);
        }
        if new.join_only {
            return Inserted::Full;
        }
        match self.reserve_job(new) {
            Some(charge) => self.insert(new, charge),
            None => Inserted::Full,
        }
    }

    fn accept_keyed(&self, new: &NewJob, key: &NewKey) -> Inserted {
        let now = self.clock.now();
        // Joining a job takes no room. It comes first, so that the job is not evicted for room.
        if let Some(keyed) = self.keys.get(&key.key, now) {
            return self.join(&keyed, key, now);
        }
        // Without a runtime no task frees expired keys.
        self.keys.reap(now, REAPED_KEYS);
        if new.join_only || self.keys.is_full() {
            return Inserted::Full;
        }
        // Before the key is locked: to make room, other jobs may be removed.
        let Some(charge) = self.reserve_job(new) else {
            return Inserted::Full;
        };
        // The key is locked until the job is in the map, so a request that finds the key finds the
        // job.
        match self.keys.lock(key.key, now) {
            KeyState::Taken(keyed) => self.join(&keyed, key, now),
            KeyState::Free(free) if self.keys.count(&free) => {
                let inserted = self.insert(new, charge);
                free.insert(KeyedJob::new(new.id, key, &self.clock));
                inserted
            }
            KeyState::Free(_) => Inserted::Full,
        }
    }

    fn reserve_job(&self, new: &NewJob) -> Option<Charge> {
        let bytes = UnfinishedJob::price(new) + new.request_bytes;
        self.reserve(bytes, Purpose::Accepted)
    }

    fn insert(&self, new: &NewJob, mut charge: Charge) -> Inserted {
        let request = charge.split(new.request_bytes);
        let job = Arc::new(UnfinishedJob::new(new, charge, &self.clock));
        self.unfinished.insert(new.id, job.clone());
        if let Some(owner) = job.owner() {
            let mut owned = self.owned.entry(owner).or_default();
            owned.insert(job.creation.cursor());
        }
        Inserted::New(job, request)
    }

    /// Ends a job. Returns `None` if it had ended before, or has another revision than the ending
    /// allows.
    ///
    /// Only [`reaper::end`](super::reaper::end) calls this, which starts the task that frees the
    /// job.
    pub(super) fn end(&self, job: &UnfinishedJob, ending: Ending) -> Option<EndedJob> {
        let (key, key_outcome) = (job.key(), ending.key);
        let keep = |ended| {
            self.ended.insert(ended, ());
        };
        let id = job.creation.id;
        let ended = job.end(ending, &self.clock, keep)?;
        self.record_deliveries(&ended);
        self.unfinished.remove(&id);
        self.order.lock().push(id, &self.budget);
        // A repeat that comes before this still joins the job.
        match key {
            Some(key) if key_outcome == KeyOutcome::Release => self.keys.free(key, id),
            Some(key) => self.keys.job_ended(key, id, self.clock.now()),
            None => {}
        }
        self.budget.announce_room();
        Some(ended)
    }

    /// Records the deliveries of a job's end.
    fn record_deliveries(&self, job: &EndedJob) {
        // Most jobs have no targets, and no snapshot is taken of them.
        if !job.has_callbacks() {
            return;
        }
        let job = job.snapshot(&self.clock, self.clock.now());
        for delivery in Delivery::of_end(&job) {
            let charge = self.reserve(MemoryOutbox::price(&delivery), Purpose::Response);
            self.outbox.add(delivery, charge);
        }
    }

    /// Returns when an ended job expires.
    pub(super) fn expiry(&self, id: JobId) -> Option<u64> {
        self.ended.get(&id).map(|job| job.key().expiry(&self.clock))
    }

    /// Removes a job that has left the order, and remembers that it existed. Its key stays.
    pub(super) fn retire(&self, id: JobId) {
        let owner = self.ended.get(&id).map(|job| job.key().owner());
        if let Some(owner) = owner {
            // Remembered first, so that the id is never unknown in between.
            self.tombstones.insert(id, owner);
            self.remove(id);
        }
    }

    /// Removes an ended job from the maps. Its charge is released when its last share is dropped.
    pub(super) fn remove(&self, id: JobId) {
        // The task that ended the job may not have removed it here yet. Without this, a reader
        // could still find the job when this returns.
        self.unfinished.remove(&id);
        let Some((job, ())) = self.ended.remove(&id) else {
            return;
        };
        if let Some(owner) = job.owner() {
            if let Some(mut owned) = self.owned.get_mut(&owner) {
                owned.remove(&job.creation().cursor());
            }
            self.owned.remove_if(&owner, |_, owned| owned.is_empty());
        }
    }

    /// Returns the key of a job, expired or not.
    pub(super) fn key_of(&self, id: JobId) -> Option<Key> {
        self.find_any(id)?.key()
    }

    #[cfg(test)]
    pub(super) fn has_owners(&self) -> bool {
        !self.owned.is_empty()
    }

    #[cfg(test)]
    pub(super) fn insert_ended(&self, job: EndedJob) {
        self.ended.insert(job, ());
    }

    #[cfg(test)]
    pub(super) fn remove_ended(&self, id: JobId) -> bool {
        self.ended.remove(&id).is_some()
    }
}
