mod changes;
mod clock;
mod ended;
mod job;
mod list;
#[cfg(test)]
mod model;
mod order;
mod packed;
mod reaper;
mod tombstones;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt,
    future::{Future, ready},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use dashmap::{DashMap, Entry};
use http::{HeaderMap, Response, request::Parts};
use parking_lot::Mutex;

pub use self::changes::MemoryChanges;
use self::{
    clock::Clock,
    ended::Ended,
    job::{Ending, Job},
    order::Order,
    reaper::EndedJobs,
    tombstones::Tombstones,
};
use super::{Acceptance, End, Finished, Lookup, NewJob, Report, Store};
use crate::{
    config::{Fingerprint, Key},
    job::{Cursor, ErrorCode, Filter, JobId, Owner, Page, Snapshot},
    limit::{Budget, Charge},
    middleware::Replay,
};

/// Keeps jobs in this process's memory, in a [`DashMap`].
///
/// What it keeps is bounded by the registry's byte budget; each job counts with its result and 320
/// bytes besides, 512 where it has an owner or an idempotency key. Where room is needed, the jobs that
/// ended first are let go. It is lost with the process: [drain](crate::Jobs::drain) before a shutdown.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// More shards than there are threads to keep apart: a shard grows by moving all its jobs, and so
/// small a shard moves in well under a millisecond at a million jobs.
const SHARDS: usize = 1024;

/// The same for the unfinished, of which there are few.
const UNFINISHED_SHARDS: usize = 64;

/// Guards of the maps never leave this folder, and are held for one look-up, insert or removal, and for the look
/// at one job of a list: what is found is cloned out. Where more than one lock is held, they were taken in this
/// order: `keys`, `unfinished` or `owned`, a job's own or `order`, `ended`.
struct Shared {
    /// Jobs that have not ended, and for a moment those that just have. Accepting one goes to a map that is
    /// small, and so at hand, however many have ended.
    unfinished: DashMap<JobId, Arc<Job>, BuildHasherDefault<IdHasher>>,
    /// A job is here before it leaves `unfinished`: whoever looks there first and then here finds it.
    ended: DashMap<Ended, (), BuildHasherDefault<IdHasher>>,
    keys: DashMap<Key, Keyed>,
    owned: DashMap<Owner, BTreeSet<Cursor>>,
    /// In which order those that have ended did so. Held for one push, pop or look at the first.
    order: Mutex<EndedJobs>,
    tombstones: Tombstones,
    budget: Budget,
    clock: Clock,
}

/// The job that a key stands for.
#[derive(Clone, Copy)]
struct Keyed {
    id: JobId,
    fingerprint: Fingerprint,
}

impl MemoryStore {
    /// A store that keeps ended jobs for `retain`, and no more than `budget` in all.
    pub fn new(retain: Duration, budget: Budget) -> Self {
        Self {
            shared: Arc::new(Shared {
                unfinished: DashMap::with_hasher_and_shard_amount(
                    Default::default(),
                    UNFINISHED_SHARDS,
                ),
                ended: DashMap::with_hasher_and_shard_amount(Default::default(), SHARDS),
                keys: DashMap::new(),
                owned: DashMap::new(),
                order: Mutex::default(),
                tombstones: Tombstones::default(),
                budget,
                clock: Clock::new(retain),
            }),
        }
    }

    /// The number of jobs kept, unfinished ones included; one that is just ending may count twice.
    pub fn len(&self) -> usize {
        self.shared.unfinished.len() + self.shared.ended.len()
    }

    /// Whether no job is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store for MemoryStore {
    type Error = Infallible;
    type Record = ();
    type Changes = MemoryChanges;
    type Claim = MemoryClaim;

    fn record(&self, _: &Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    fn reserve(&self, bytes: usize) -> Option<Charge> {
        self.shared.reserve(bytes)
    }

    // What takes no time is done in the call, so that the layer's future has no room to keep for it.
    fn accept(
        &self,
        new: &NewJob,
        (): (),
    ) -> impl Future<Output = Result<Acceptance<MemoryClaim>, Infallible>> + Unpin + 'static {
        ready(Ok(self.shared.accept(new)))
    }

    fn get(&self, id: JobId) -> impl Future<Output = Result<Lookup, Infallible>> + Unpin + 'static {
        ready(Ok(self.shared.lookup(id, |_| {})))
    }

    fn changes(&self, id: JobId) -> MemoryChanges {
        MemoryChanges::new(id, &self.shared)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, Infallible> {
        Ok(self.shared.list(filter).await)
    }

    async fn result(&self, id: JobId) -> Result<Option<Response<Replay>>, Infallible> {
        let ended = self.shared.find(id).and_then(|found| found.ended());
        Ok(ended.and_then(|ended| ended.response()))
    }

    fn report(
        &self,
        claim: &MemoryClaim,
        report: Report,
    ) -> impl Future<Output = Result<(), Infallible>> + Unpin + 'static {
        claim.job.report(report, &self.shared.clock);
        ready(Ok(()))
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End,
    ) -> impl Future<Output = Result<Finished, Infallible>> + Unpin + 'static {
        let ending = Ending::new(end, &self.shared.clock);
        ready(Ok(match self.shared.end(&claim.job, ending) {
            true => Finished::First,
            false => Finished::Late,
        }))
    }

    fn poll_canceled(&self, claim: &MemoryClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.job.poll_ended(cx)
    }

    async fn cancel(&self, id: JobId) -> Result<Lookup, Infallible> {
        let canceled = Ending::early(ErrorCode::Canceled);
        Ok(self.shared.lookup(id, |job| {
            self.shared.end(job, canceled);
        }))
    }

    async fn forget(&self, id: JobId) -> Result<Lookup, Infallible> {
        let found = self.cancel(id).await?;
        if let Lookup::Found(_) = found {
            self.shared.remove(id);
        }
        Ok(found)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("jobs", &self.len())
            .field("budget", &self.shared.budget)
            .finish_non_exhaustive()
    }
}

/// The right to end a job in memory. Dropped before the job has ended, as it is when its task goes
/// away with its runtime, it ends the job as [`ErrorCode::Shutdown`].
pub struct MemoryClaim {
    shared: Arc<Shared>,
    job: Arc<Job>,
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        let shutdown = Ending::early(ErrorCode::Shutdown);
        self.shared.end(&self.job, shutdown);
    }
}

impl fmt::Debug for MemoryClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryClaim")
            .field(&self.job.birth.id)
            .finish()
    }
}

/// A job that was found.
enum Found {
    Unfinished(Arc<Job>),
    Ended(Ended),
}

impl Found {
    fn owner(&self) -> Option<Owner> {
        match self {
            Self::Unfinished(job) => job.owner(),
            Self::Ended(ended) => ended.owner(),
        }
    }

    /// The job as it has ended, if it has: it may have, since it was found.
    fn ended(&self) -> Option<Ended> {
        match self {
            Self::Unfinished(job) => job.ended(),
            Self::Ended(ended) => Some(ended.clone()),
        }
    }

    fn snapshot(&self, clock: &Clock) -> Snapshot {
        match self {
            Self::Unfinished(job) => job.snapshot(clock),
            Self::Ended(ended) => ended.snapshot(clock),
        }
    }
}

impl Shared {
    /// A job that has not expired.
    fn find(&self, id: JobId) -> Option<Found> {
        let found = self.look_for(id)?;
        let is_expired = match &found {
            // It has just ended, if it has.
            Found::Unfinished(_) => false,
            Found::Ended(ended) => ended.is_expired(&self.clock),
        };
        (!is_expired).then_some(found)
    }

    /// A job that is kept, expired or not.
    fn look_for(&self, id: JobId) -> Option<Found> {
        if let Some(job) = self.unfinished.get(&id) {
            return Some(Found::Unfinished(job.clone()));
        }
        let ended = self.ended.get(&id)?;
        Some(Found::Ended(ended.key().clone()))
    }

    /// What is known of an id, after `act` where there is such a job that may not have ended.
    fn lookup(self: &Arc<Self>, id: JobId, act: impl FnOnce(&Job)) -> Lookup {
        if let Some(found) = self.find(id) {
            if let Found::Unfinished(job) = &found {
                act(job);
            }
            return Lookup::Found(Box::new(found.snapshot(&self.clock)));
        }
        // Expired and not yet reaped, or reaped and remembered.
        let expired = self.look_for(id).map(|found| found.owner());
        match expired.or_else(|| self.tombstones.get(id)) {
            Some(owner) => Lookup::Gone(owner),
            None => Lookup::Unknown,
        }
    }

    /// What comes of a key that is known already.
    fn join<C>(&self, key: &Key, fingerprint: Fingerprint) -> Option<Acceptance<C>> {
        let keyed = *self.keys.get(key)?;
        self.join_as(keyed, fingerprint)
    }

    /// The same of what the key stands for; `None` where that job is gone.
    fn join_as<C>(&self, keyed: Keyed, fingerprint: Fingerprint) -> Option<Acceptance<C>> {
        let job = self.find(keyed.id)?;
        Some(match keyed.fingerprint == fingerprint {
            true => Acceptance::Joined(Box::new(job.snapshot(&self.clock))),
            false => Acceptance::KeyReused,
        })
    }

    /// Makes a job, or finds that of its key.
    fn accept(self: &Arc<Self>, new: &NewJob) -> Acceptance<MemoryClaim> {
        // A job that can be joined takes no room, and is not to go for room.
        if let Some((key, fingerprint)) = &new.key
            && let Some(joined) = self.join(key, *fingerprint)
        {
            return joined;
        }
        // Before any guard is taken: for room, other jobs and their keys may have to go.
        let charge = match new.join_only {
            true => None,
            false => self.reserve(Job::cost(new)),
        };
        let Some((key, fingerprint)) = new.key else {
            return self.insert(new, charge);
        };
        let keyed = Keyed {
            id: new.id,
            fingerprint,
        };
        // The entry's guard is held until the job is in the map: who finds the key finds the job.
        match self.keys.entry(key) {
            Entry::Occupied(mut entry) => match self.join_as(*entry.get(), fingerprint) {
                Some(joined) => joined,
                // Its job is about to be removed, and the key with it if it is still that job's.
                None => {
                    let accepted = self.insert(new, charge);
                    if let Acceptance::RunHere(_) = accepted {
                        entry.insert(keyed);
                    }
                    accepted
                }
            },
            Entry::Vacant(entry) => {
                let accepted = self.insert(new, charge);
                if let Acceptance::RunHere(_) = accepted {
                    entry.insert(keyed);
                }
                accepted
            }
        }
    }

    /// Puts a job in, if it is paid for.
    fn insert(self: &Arc<Self>, new: &NewJob, charge: Option<Charge>) -> Acceptance<MemoryClaim> {
        let Some(charge) = charge else {
            return Acceptance::Full;
        };
        // Given back by `remove`.
        charge.keep();
        let job = Arc::new(Job::new(new, &self.clock));
        self.unfinished.insert(new.id, job.clone());
        if let Some(owner) = job.owner() {
            let mut owned = self.owned.entry(owner).or_default();
            owned.insert(job.birth.cursor());
        }
        Acceptance::RunHere(MemoryClaim {
            shared: self.clone(),
            job,
        })
    }

    /// Takes bytes, if need be by letting go of the jobs that ended first.
    fn reserve(&self, bytes: usize) -> Option<Charge> {
        loop {
            if let Some(charge) = self.budget.reserve(bytes) {
                return Some(charge);
            }
            if bytes > self.budget.limit() {
                return None;
            }
            let first = self.order.lock().order.pop()?;
            self.retire(first);
        }
    }

    /// Ends a job; `false` if it had ended before.
    fn end(self: &Arc<Self>, job: &Job, ending: Ending) -> bool {
        let keep = |ended| {
            self.ended.insert(ended, ());
        };
        let is_first = job.end(ending, &self.clock, keep);
        if is_first {
            self.unfinished.remove(&job.birth.id);
            self.order.lock().push(job.birth.id, self);
        }
        is_first
    }

    /// When an ended job expires.
    fn expiry(&self, id: JobId) -> Option<u64> {
        self.ended.get(&id).map(|job| job.key().expiry(&self.clock))
    }

    /// Lets a job go that has left the order, and remembers that it was there.
    fn retire(&self, id: JobId) {
        self.budget.release(Order::PLACE_BYTES);
        let owner = self.ended.get(&id).map(|job| job.key().owner());
        if let Some(owner) = owner {
            // First remembered, then removed: at no time is it unknown.
            self.tombstones.insert(id, owner);
            self.remove(id);
        }
    }

    /// Removes an ended job from the maps. Only one caller gets it out, and that one gives back what
    /// it was charged, but for its place in the order, which [`retire`](Self::retire) gives back.
    fn remove(&self, id: JobId) {
        // Who ended it may not have come to that. First, so that nobody returns from here before it is out of
        // both maps.
        self.unfinished.remove(&id);
        let Some((job, ())) = self.ended.remove(&id) else {
            return;
        };
        let birth = job.birth();
        if let Some(key) = job.key() {
            self.keys.remove_if(&key, |_, keyed| keyed.id == id);
        }
        if let Some(owner) = job.owner() {
            if let Some(mut owned) = self.owned.get_mut(&owner) {
                owned.remove(&birth.cursor());
            }
            self.owned.remove_if(&owner, |_, owned| owned.is_empty());
        }
        self.budget.release(job.charged() - Order::PLACE_BYTES);
    }
}

/// A job's id is random already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }
}
