use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn, ready},
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Weak},
    task::{Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use dashmap::DashMap;
use http::{HeaderMap, Response, request::Parts};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::{AbortHandle, yield_now},
    time::{Instant, sleep_until},
};

use super::{
    Acceptance, Change, End, Lookup, NewJob, Outcome, Store,
    order::{Order, Place},
    packed::Packed,
    tombstones::Tombstones,
};
use crate::{
    body::Replay,
    budget::{Budget, Charge},
    job::{ErrorCode, Event, Failure, JobId, Progress, ResponseHead, Snapshot, Status},
};

/// Keeps jobs in this process's memory, in a [`DashMap`].
///
/// What it keeps is bounded by the registry's byte budget; each job counts with its result and 320
/// bytes besides. Where room is needed, the jobs that ended first are let go. It is lost with the
/// process: [drain](crate::Jobs::drain) before a shutdown.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// What a job counts in the budget besides its result: about what it takes of the heap.
const JOB_BYTES: usize = 320;

/// More shards than there are threads to keep apart: a shard grows by moving all its jobs, and so
/// small a shard moves in well under a millisecond at a million jobs.
const SHARDS: usize = 1024;

/// How many jobs the reaper takes before it lets others run.
const REAP_AT_ONCE: usize = 64;

/// How long the reaper rests at least: what has expired is not shown, reaped or not.
const REAP_EVERY: Duration = Duration::from_secs(1);

struct Shared {
    /// Guards are held for one look-up, insert or removal, and never leave this file: what is found
    /// is cloned out as an `Arc`.
    jobs: DashMap<JobId, Arc<Job>, BuildHasherDefault<IdHasher>>,
    /// Held for one push or pop. Taken while no other lock is held.
    ended: Mutex<EndedJobs>,
    tombstones: Tombstones,
    budget: Budget,
    retain: Duration,
    /// Where the store's milliseconds count from.
    epoch: Instant,
}

#[derive(Default)]
struct EndedJobs {
    order: Order,
    reaper: Option<AbortHandle>,
}

/// One job. Its place in the map never changes what it points to, so a claim ends its job without
/// looking it up.
struct Job {
    /// In milliseconds since the epoch of the store.
    created: u64,
    /// In milliseconds since the epoch of Unix.
    created_at: u64,
    /// Held for one transition or one copy, never across an await or a wake-up. Whoever moves it to
    /// `Ended` has ended the job: that there is one end follows from the lock and
    /// [`Status::next`].
    phase: Mutex<Phase>,
}

enum Phase {
    Unfinished(Unfinished),
    Ended(Ended),
}

struct Unfinished {
    revision: u32,
    started: Option<u64>,
    progress: Progress,
    /// Who waits in [`Store::canceled`]: the task that runs the call.
    canceler: Option<Waker>,
}

struct Ended {
    revision: u32,
    status: Status,
    /// What it holds of the budget, to be released by who removes the job from the map.
    charged: usize,
    started: Option<u64>,
    finished: u64,
    progress: Progress,
    kept: Kept,
}

enum Kept {
    Response(Packed),
    Nothing(ErrorCode),
}

impl MemoryStore {
    /// A store that keeps ended jobs for `retain`, and no more than `budget` in all.
    pub fn new(retain: Duration, budget: Budget) -> Self {
        Self {
            shared: Arc::new(Shared {
                jobs: DashMap::with_hasher_and_shard_amount(Default::default(), SHARDS),
                ended: Mutex::default(),
                tombstones: Tombstones::default(),
                budget,
                retain,
                epoch: Instant::now(),
            }),
        }
    }

    /// The number of jobs kept, unfinished ones included.
    pub fn len(&self) -> usize {
        self.shared.jobs.len()
    }

    /// Whether no job is kept.
    pub fn is_empty(&self) -> bool {
        self.shared.jobs.is_empty()
    }
}

impl Store for MemoryStore {
    type Error = Infallible;
    type Record = ();
    type Claim = MemoryClaim;

    fn record(&self, _: &Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    fn reserve(&self, bytes: usize) -> Option<Charge> {
        self.shared.reserve(bytes)
    }

    // What the way of every request takes is done when it is asked for, not when it is polled: a future
    // that holds no more than its outcome is not copied about.

    fn accept(
        &self,
        new: NewJob,
        (): (),
    ) -> impl Future<Output = Result<Acceptance<MemoryClaim>, Infallible>> {
        ready(Ok(match self.shared.accept(new) {
            Some(claim) => Acceptance::RunHere(claim),
            None => Acceptance::Full,
        }))
    }

    fn get(&self, id: JobId) -> impl Future<Output = Result<Lookup, Infallible>> {
        ready(Ok(self
            .shared
            .lookup(id, |job| job.snapshot(id, &self.shared))))
    }

    async fn result(&self, id: JobId) -> Result<Option<Response<Replay>>, Infallible> {
        let Some(job) = self.shared.find(id) else {
            return Ok(None);
        };
        let unpacked = match &*job.phase.lock() {
            Phase::Ended(Ended {
                kept: Kept::Response(packed),
                ..
            }) => packed.unpack(),
            _ => return Ok(None),
        };
        let mut response = Response::new(Replay::new(unpacked.body, unpacked.trailers));
        *response.status_mut() = unpacked.status;
        *response.headers_mut() = unpacked.headers;
        Ok(Some(response))
    }

    fn report(
        &self,
        claim: &MemoryClaim,
        change: Change,
    ) -> impl Future<Output = Result<(), Infallible>> {
        if let Phase::Unfinished(job) = &mut *claim.job.phase.lock() {
            job.revision += 1;
            match change {
                Change::Started(at) => job.started = Some(self.shared.millis(at)),
                Change::Progress(progress) => job.progress = progress,
            }
        }
        ready(Ok(()))
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End,
    ) -> impl Future<Output = Result<bool, Infallible>> {
        let ending = Ending {
            started: end.started.map(|at| self.shared.millis(at)),
            progress: Some(end.progress),
            ..Ending::new(end.outcome)
        };
        ready(Ok(self.shared.end(claim.id, &claim.job, ending)))
    }

    async fn canceled(&self, claim: &MemoryClaim) {
        poll_fn(|cx| match &mut *claim.job.phase.lock() {
            Phase::Ended(_) => Poll::Ready(()),
            Phase::Unfinished(job) => {
                match &mut job.canceler {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        })
        .await;
    }

    async fn cancel(&self, id: JobId) -> Result<Lookup, Infallible> {
        let shared = &self.shared;
        if let Some(job) = shared.find(id) {
            shared.end(id, &job, Ending::early(ErrorCode::Canceled));
        }
        self.get(id).await
    }

    async fn forget(&self, id: JobId) -> Result<Lookup, Infallible> {
        let shared = &self.shared;
        let found = shared.lookup(id, |job| {
            let snapshot = job.snapshot(id, shared);
            shared.end(id, job, Ending::early(ErrorCode::Canceled));
            snapshot
        });
        if let Lookup::Found(_) = &found {
            shared.remove(id);
        }
        Ok(found)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("jobs", &self.len())
            .field("budget", &self.shared.budget)
            .field("retain", &self.shared.retain)
            .finish()
    }
}

/// The right to end a job in memory. Dropped before the job has ended, as it is when its task goes
/// away with its runtime, it ends the job as [`ErrorCode::Shutdown`].
pub struct MemoryClaim {
    shared: Arc<Shared>,
    id: JobId,
    job: Arc<Job>,
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        let shutdown = Ending::early(ErrorCode::Shutdown);
        self.shared.end(self.id, &self.job, shutdown);
    }
}

impl fmt::Debug for MemoryClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryClaim").field(&self.id).finish()
    }
}

impl Shared {
    fn millis(&self, at: Instant) -> u64 {
        whole_millis(at.saturating_duration_since(self.epoch))
    }

    /// Makes a job; `None` where there is no room for it.
    fn accept(self: &Arc<Self>, new: NewJob) -> Option<MemoryClaim> {
        // Given back by `remove`.
        self.reserve(JOB_BYTES)?.keep();
        let job = Arc::new(Job {
            created: self.millis(new.created),
            created_at: since_unix_epoch(new.created_at),
            phase: Mutex::new(Phase::Unfinished(Unfinished {
                revision: 1,
                started: new.started.map(|started| self.millis(started)),
                progress: new.progress,
                canceler: None,
            })),
        });
        self.jobs.insert(new.id, job.clone());
        Some(MemoryClaim {
            shared: self.clone(),
            id: new.id,
            job,
        })
    }

    fn find(&self, id: JobId) -> Option<Arc<Job>> {
        let job = self.jobs.get(&id)?.clone();
        let expired = match &*job.phase.lock() {
            Phase::Ended(ended) => self.expiry(ended) <= self.millis(Instant::now()),
            Phase::Unfinished(_) => false,
        };
        (!expired).then_some(job)
    }

    fn lookup(&self, id: JobId, found: impl FnOnce(&Arc<Job>) -> Snapshot) -> Lookup {
        match self.find(id) {
            Some(job) => Lookup::Found(found(&job)),
            // Expired and not reaped, or reaped and remembered.
            None if self.jobs.contains_key(&id) || self.tombstones.contains(id) => Lookup::Gone,
            None => Lookup::Unknown,
        }
    }

    fn expiry(&self, ended: &Ended) -> u64 {
        ended.finished.saturating_add(whole_millis(self.retain))
    }

    fn reserve(&self, bytes: usize) -> Option<Charge> {
        loop {
            if let Some(charge) = self.budget.reserve(bytes) {
                return Some(charge);
            }
            if bytes > self.budget.limit() {
                return None;
            }
            let oldest = self.ended.lock().order.pop()?;
            self.retire(oldest);
        }
    }

    /// Ends a job; `false` if it had ended before.
    fn end(self: &Arc<Self>, id: JobId, job: &Job, ending: Ending) -> bool {
        let finished = self.millis(Instant::now());
        let unfinished = {
            let mut phase = job.phase.lock();
            let Phase::Unfinished(unfinished) = &mut *phase else {
                return false;
            };
            let Some(status) = unfinished.status().next(ending.event) else {
                return false;
            };
            let ended = Phase::Ended(Ended {
                revision: unfinished.revision + 1,
                status,
                charged: JOB_BYTES + ending.charge.map_or(0, Charge::keep),
                started: ending.started.or(unfinished.started),
                finished,
                progress: ending
                    .progress
                    .unwrap_or_else(|| std::mem::take(&mut unfinished.progress)),
                kept: ending.kept,
            });
            std::mem::replace(&mut *phase, ended)
        };
        self.push_ended(Place {
            id,
            expires: finished.saturating_add(whole_millis(self.retain)),
        });
        if let Phase::Unfinished(Unfinished {
            canceler: Some(waker),
            ..
        }) = unfinished
        {
            waker.wake();
        }
        true
    }

    /// Puts a job last in the order, and sees to it that a reaper is there. Both under one lock: a
    /// reaper leaves only while holding it, having seen the order empty.
    fn push_ended(self: &Arc<Self>, place: Place) {
        let mut ended = self.ended.lock();
        ended.order.push(place);
        if ended.reaper.as_ref().is_none_or(AbortHandle::is_finished) {
            // Without a runtime, as in one that is shutting down, memory is freed when room is
            // needed.
            ended.reaper = Handle::try_current()
                .ok()
                .map(|runtime| runtime.spawn(reap(Arc::downgrade(self))).abort_handle());
        }
    }

    /// Removes up to [`REAP_AT_ONCE`] expired jobs. Returns when the next one expires, or `None`
    /// where there is none and the reaper is to leave.
    fn reap(&self) -> Option<Instant> {
        for _ in 0..REAP_AT_ONCE {
            let expired = {
                let mut ended = self.ended.lock();
                let Some(first) = ended.order.first() else {
                    ended.reaper = None;
                    return None;
                };
                if first.expires > self.millis(Instant::now()) {
                    return Some(self.epoch + Duration::from_millis(first.expires));
                }
                ended.order.pop()
            };
            if let Some(expired) = expired {
                self.retire(expired);
            }
        }
        Some(Instant::now())
    }

    /// Lets a job go that has left the order, and remembers that it was there.
    fn retire(&self, place: Place) {
        self.budget.release(Order::PLACE_BYTES);
        if self.jobs.contains_key(&place.id) {
            // First remembered, then removed: at no time is it unknown.
            self.tombstones.insert(place.id);
            self.remove(place.id);
        }
    }

    /// Removes an ended job from the map. Only one caller gets it out, and that one gives back what
    /// it was charged, but for its place in the order, which [`retire`](Self::retire) gives back.
    fn remove(&self, id: JobId) {
        if let Some((_, job)) = self.jobs.remove(&id)
            && let Phase::Ended(ended) = &*job.phase.lock()
        {
            self.budget.release(ended.charged - Order::PLACE_BYTES);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(reaper) = self.ended.get_mut().reaper.take() {
            reaper.abort();
        }
    }
}

/// Frees the memory of expired jobs until there is none left or the store is gone.
async fn reap(store: Weak<Shared>) {
    loop {
        // Not held while resting: the store's last owner may go, and its `Drop` ends this task.
        let Some(next) = store.upgrade().and_then(|store| store.reap()) else {
            return;
        };
        let now = Instant::now();
        if next > now {
            sleep_until(next.max(now + REAP_EVERY)).await;
        } else {
            yield_now().await;
        }
    }
}

struct Ending {
    event: Event,
    kept: Kept,
    charge: Option<Charge>,
    started: Option<u64>,
    progress: Option<Progress>,
}

impl Ending {
    fn new(outcome: Outcome) -> Self {
        let response = match outcome {
            Outcome::Broke(code) => return Self::early(code),
            Outcome::Response(response) => response,
        };
        let (head, body) = response.into_parts();
        let trailers = body.trailers.as_deref();
        let packed = Packed::new(head.status, &head.headers, trailers, body.bytes);
        Self {
            event: Event::Responded(head.status),
            kept: Kept::Response(packed),
            charge: body.charge,
            started: None,
            progress: None,
        }
    }

    /// An end that comes from elsewhere than from the call.
    fn early(code: ErrorCode) -> Self {
        Self {
            event: Event::Broke(code),
            kept: Kept::Nothing(code),
            charge: None,
            started: None,
            progress: None,
        }
    }
}

impl Unfinished {
    fn status(&self) -> Status {
        match self.started {
            None => Status::Queued,
            Some(_) => Status::Running,
        }
    }
}

impl Job {
    fn snapshot(&self, id: JobId, shared: &Shared) -> Snapshot {
        let created_at = UNIX_EPOCH + Duration::from_millis(self.created_at);
        let created = shared.epoch + Duration::from_millis(self.created);
        let shown = |at: u64| created_at + Duration::from_millis(at.saturating_sub(self.created));
        match &*self.phase.lock() {
            Phase::Unfinished(job) => Snapshot {
                id,
                revision: job.revision.into(),
                status: job.status(),
                created,
                created_at,
                started_at: job.started.map(shown),
                finished_at: None,
                expires_at: None,
                progress: job.progress.clone(),
                response: None,
                error: None,
            },
            Phase::Ended(job) => {
                let (response, error) = job.kept.glance();
                Snapshot {
                    id,
                    revision: job.revision.into(),
                    status: job.status,
                    created,
                    created_at,
                    started_at: job.started.map(shown),
                    finished_at: Some(shown(job.finished)),
                    expires_at: Some(shown(shared.expiry(job))),
                    progress: job.progress.clone(),
                    response,
                    error,
                }
            }
        }
    }
}

impl Kept {
    fn glance(&self) -> (Option<ResponseHead>, Option<Failure>) {
        match self {
            Self::Response(packed) => {
                let (status, content_type, content_length) = packed.glance();
                let error = (status.as_u16() >= 400).then_some(Failure {
                    code: ErrorCode::HttpError,
                    status: Some(status),
                });
                let head = ResponseHead {
                    status,
                    content_type,
                    content_length,
                };
                (Some(head), error)
            }
            Self::Nothing(code) => {
                let (code, status) = (*code, None);
                (None, Some(Failure { code, status }))
            }
        }
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

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_unix_epoch(at: SystemTime) -> u64 {
    whole_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}
