//! The budget for the bytes that a registry keeps in this process's memory.

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, futures::Notified};

use super::room_queue::RoomQueue;
use crate::telemetry;

/// The default time after which a response that waits for room is refused.
const DEFAULT_ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// A limit on the bytes that a registry keeps in this process's memory.
///
/// A quarter of it is for uploads, and a quarter for replays. Jobs have the rest, and accepted
/// requests may take half of that. So slow clients take no room from jobs, and requests leave room
/// for responses. A single replay may take more, from the room of jobs, or a large result could
/// never be sent.
///
/// Clones share one limit.
#[derive(Clone)]
pub struct Budget {
    pub(super) pool: Arc<Pool>,
}

/// The use of bytes of a [`Budget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The body of a request that has not been accepted.
    Upload,
    /// An unfinished job: its record, and its request until the call has ended.
    ///
    /// No request is accepted while a response waits for room.
    Accepted,
    /// The response of an unfinished job.
    Response,
    /// An ended job and its response. The store may evict it.
    Kept,
    /// A stored response that is being sent to clients.
    Replay,
}

/// The bytes in use.
///
/// Only counts: no other memory depends on them. The updates that meet a check are one atomic step,
/// so concurrent reservations never pass the share. The exception is a replay beyond its quarter,
/// which may meet a concurrent response. They are `SeqCst` for the handshake that
/// [`RoomQueue`] argues.
pub(super) struct Pool {
    uploads: AtomicUsize,
    /// Unfinished and kept jobs, with their responses.
    jobs: AtomicUsize,
    /// The part of `jobs` that is for unfinished jobs without their responses.
    accepted: AtomicUsize,
    /// The part of `jobs` that is kept.
    kept: AtomicUsize,
    replays: AtomicUsize,
    /// Set when a registry is built. `Relaxed`: a concurrent reservation may see the earlier value.
    limit: AtomicUsize,
    /// In milliseconds. Set and read like `limit`.
    room_timeout: AtomicU64,
    /// The responses that wait for room.
    pub(super) room: RoomQueue,
    /// Notified when bytes of replays are released.
    replay_released: Notify,
}

impl Drop for Pool {
    /// Subtracts the bytes that are still charged from the gauge.
    fn drop(&mut self) {
        telemetry::released(self.used());
    }
}

impl Budget {
    /// Creates a budget of `limit` bytes, all of them free.
    pub fn new(limit: usize) -> Self {
        let count = || AtomicUsize::new(0);
        let room_timeout = DEFAULT_ROOM_TIMEOUT.as_millis() as u64;
        Self {
            pool: Arc::new(Pool {
                uploads: count(),
                jobs: count(),
                accepted: count(),
                kept: count(),
                replays: count(),
                limit: AtomicUsize::new(limit),
                room_timeout: AtomicU64::new(room_timeout),
                room: RoomQueue::default(),
                replay_released: Notify::new(),
            }),
        }
    }

    /// Takes `bytes`, or returns `None` if the purpose has no room for them.
    pub fn reserve(&self, bytes: usize, purpose: Purpose) -> Option<Charge> {
        self.pool.take(bytes, purpose).then(|| Charge {
            pool: self.pool.clone(),
            bytes,
            purpose,
        })
    }

    /// Returns `true` if evicting kept jobs can make room for `bytes`.
    pub fn has_evictable(&self, bytes: usize, purpose: Purpose) -> bool {
        let pool = &*self.pool;
        let accepted = match purpose {
            Purpose::Response => 0,
            Purpose::Accepted if !pool.room.is_awaited() => pool.accepted.load(Ordering::SeqCst),
            _ => return false,
        };
        if accepted.saturating_add(bytes) > self.share(purpose) {
            return false;
        }
        let kept = pool.kept.load(Ordering::SeqCst);
        let jobs = pool.jobs.load(Ordering::SeqCst).saturating_sub(kept);
        jobs.checked_add(bytes)
            .is_some_and(|needed| needed <= pool.jobs_limit())
    }

    /// Wakes the oldest response that waits for room, since a kept job can be evicted now.
    ///
    /// Releasing bytes does this too.
    pub fn announce_room(&self) {
        self.pool.room.announce();
    }

    /// Releases bytes of a charge that was taken apart with [`Charge::into_parts`].
    pub fn release(&self, bytes: usize, purpose: Purpose) {
        self.pool.release(bytes, purpose);
    }

    /// Counts kept bytes as a replay. Returns `false` if replays have no room for them.
    ///
    /// A store that sends a kept response without a copy calls this for its first reader, and
    /// [`end_replay`](Self::end_replay) after its last.
    pub fn begin_replay(&self, kept: usize) -> bool {
        let pool = &*self.pool;
        let is_taken = pool.take_replay(kept, kept);
        if is_taken {
            pool.kept.fetch_sub(kept, Ordering::SeqCst);
            pool.jobs.fetch_sub(kept, Ordering::SeqCst);
            pool.room.announce();
        }
        is_taken
    }

    /// Counts the bytes of a replay as kept again.
    pub fn end_replay(&self, kept: usize) {
        let pool = &*self.pool;
        pool.jobs.fetch_add(kept, Ordering::SeqCst);
        pool.kept.fetch_add(kept, Ordering::SeqCst);
        pool.replays.fetch_sub(kept, Ordering::SeqCst);
        pool.replay_released.notify_waiters();
        pool.room.announce();
    }

    /// Completes when bytes of replays are released after this call.
    pub fn replay_released(&self) -> Notified<'_> {
        self.pool.replay_released.notified()
    }

    /// Returns the number of bytes in use.
    pub fn used(&self) -> usize {
        self.pool.used()
    }

    /// Returns the number of bytes in use for one purpose.
    pub fn used_for(&self, purpose: Purpose) -> usize {
        let pool = &*self.pool;
        let [accepted, kept] = [&pool.accepted, &pool.kept].map(|used| used.load(Ordering::SeqCst));
        match purpose {
            Purpose::Upload => pool.uploads.load(Ordering::SeqCst),
            Purpose::Replay => pool.replays.load(Ordering::SeqCst),
            Purpose::Accepted => accepted,
            Purpose::Kept => kept,
            Purpose::Response => {
                let jobs = pool.jobs.load(Ordering::SeqCst);
                jobs.saturating_sub(accepted + kept)
            }
        }
    }

    /// Returns the maximum number of bytes for one purpose, if nothing is in use.
    pub fn share(&self, purpose: Purpose) -> usize {
        let (limit, quarter) = (self.limit(), self.pool.quarter());
        match purpose {
            Purpose::Upload | Purpose::Accepted => quarter,
            Purpose::Replay => limit - quarter,
            Purpose::Response | Purpose::Kept => limit - 2 * quarter,
        }
    }

    /// Returns the number of bytes in total.
    pub fn limit(&self) -> usize {
        self.pool.limit.load(Ordering::Relaxed)
    }

    /// Sets the number of bytes in total.
    ///
    /// Bytes in use stay charged. With a lower limit, reservations fail until enough bytes have
    /// been released.
    pub fn set_limit(&self, bytes: usize) {
        self.pool.limit.store(bytes, Ordering::Relaxed);
    }

    /// Returns how long a response waits for room while none is released. Default: 5 s.
    pub fn room_timeout(&self) -> Duration {
        Duration::from_millis(self.pool.room_timeout.load(Ordering::Relaxed))
    }

    /// Sets how long a response waits for room while none is released.
    pub fn set_room_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.pool.room_timeout.store(millis, Ordering::Relaxed);
    }
}

impl Pool {
    fn used(&self) -> usize {
        [&self.uploads, &self.jobs, &self.replays]
            .iter()
            .map(|used| used.load(Ordering::SeqCst))
            .sum()
    }

    fn quarter(&self) -> usize {
        self.limit.load(Ordering::Relaxed) / 4
    }

    /// Returns the maximum number of bytes of jobs. One large replay may lower it.
    fn jobs_limit(&self) -> usize {
        let (limit, quarter) = (self.limit.load(Ordering::Relaxed), self.quarter());
        let replays = self.replays.load(Ordering::SeqCst).max(quarter);
        (limit - quarter).saturating_sub(replays)
    }

    /// Returns the count of a purpose within `jobs`, if it has one.
    fn part_of_jobs(&self, purpose: Purpose) -> Option<&AtomicUsize> {
        match purpose {
            Purpose::Accepted => Some(&self.accepted),
            Purpose::Kept => Some(&self.kept),
            Purpose::Response | Purpose::Upload | Purpose::Replay => None,
        }
    }

    fn take(&self, bytes: usize, purpose: Purpose) -> bool {
        let is_taken = match purpose {
            Purpose::Upload => add_within(&self.uploads, bytes, self.quarter()),
            Purpose::Replay => self.take_replay(bytes, 0),
            Purpose::Accepted => !self.room.is_awaited() && self.take_accepted(bytes),
            Purpose::Response | Purpose::Kept => add_within(&self.jobs, bytes, self.jobs_limit()),
        };
        if is_taken {
            if purpose == Purpose::Kept {
                self.kept.fetch_add(bytes, Ordering::SeqCst);
            }
            telemetry::reserved(bytes);
        }
        is_taken
    }

    fn take_accepted(&self, bytes: usize) -> bool {
        if !add_within(&self.accepted, bytes, self.quarter()) {
            return false;
        }
        let is_taken = add_within(&self.jobs, bytes, self.jobs_limit());
        if !is_taken {
            self.accepted.fetch_sub(bytes, Ordering::SeqCst);
        }
        is_taken
    }

    /// Takes bytes for a replay. Of these, `kept` are in use already.
    fn take_replay(&self, bytes: usize, kept: usize) -> bool {
        let quarter = self.quarter();
        if add_within(&self.replays, bytes, quarter) {
            return true;
        }
        // The only replay may take more than the share, or a large result could never be sent.
        let others = self.jobs.load(Ordering::SeqCst).saturating_sub(kept);
        let free = (self.limit.load(Ordering::Relaxed) - quarter).saturating_sub(others);
        bytes <= free
            && self
                .replays
                .compare_exchange(0, bytes, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    fn release(&self, bytes: usize, purpose: Purpose) {
        if bytes == 0 {
            return;
        }
        match purpose {
            Purpose::Upload => {
                self.uploads.fetch_sub(bytes, Ordering::SeqCst);
            }
            Purpose::Replay => {
                self.replays.fetch_sub(bytes, Ordering::SeqCst);
                self.replay_released.notify_waiters();
                self.room.announce();
            }
            Purpose::Accepted | Purpose::Response | Purpose::Kept => {
                if let Some(part) = self.part_of_jobs(purpose) {
                    part.fetch_sub(bytes, Ordering::SeqCst);
                }
                self.jobs.fetch_sub(bytes, Ordering::SeqCst);
                self.room.announce();
            }
        }
        telemetry::released(bytes);
    }
}

/// Adds `bytes` to a count unless it would pass `limit`.
fn add_within(used: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let next = |used: usize| used.checked_add(bytes).filter(|&used| used <= limit);
    used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
        .is_ok()
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("used", &self.used())
            .field("limit", &self.limit())
            .finish()
    }
}

/// Bytes taken from a [`Budget`], released on drop.
#[must_use = "dropping a charge releases its bytes"]
pub struct Charge {
    pool: Arc<Pool>,
    bytes: usize,
    purpose: Purpose,
}

impl Charge {
    /// Returns the number of bytes this holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the bytes of `other`, a charge of the same budget and purpose, to this one.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(
            Arc::ptr_eq(&self.pool, &other.pool) && self.purpose == other.purpose,
            "charges of two budgets or purposes"
        );
        self.bytes += mem::take(&mut other.bytes);
    }

    /// Returns the budget and the bytes, for a caller that has no room for a whole charge. It must
    /// release them with [`Budget::release`].
    pub fn into_parts(mut self) -> (Budget, usize) {
        let bytes = mem::take(&mut self.bytes);
        let pool = self.pool.clone();
        (Budget { pool }, bytes)
    }

    /// Splits off a charge of at most `bytes`.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            pool: self.pool.clone(),
            bytes,
            purpose: self.purpose,
        }
    }

    /// Releases all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(excess) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.pool.release(excess, self.purpose);
        }
    }

    /// Marks the bytes of an unfinished job as those of an ended one, which may be evicted.
    pub fn keep(&mut self) {
        if matches!(self.purpose, Purpose::Accepted | Purpose::Response) {
            self.pool.kept.fetch_add(self.bytes, Ordering::SeqCst);
            if let Some(part) = self.pool.part_of_jobs(self.purpose) {
                part.fetch_sub(self.bytes, Ordering::SeqCst);
            }
            self.purpose = Purpose::Kept;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.release(self.bytes, self.purpose);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("bytes", &self.bytes)
            .field("purpose", &self.purpose)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_its_share() {
        let budget = Budget::new(100);
        let used = |of| budget.used_for(of);
        let upload = budget.reserve(25, Purpose::Upload).expect("free");
        assert!(budget.reserve(1, Purpose::Upload).is_none());
        let accepted = budget.reserve(20, Purpose::Accepted).expect("free");
        assert!(budget.reserve(6, Purpose::Accepted).is_none());
        assert!(budget.reserve(31, Purpose::Response).is_none());
        let mut response = budget.reserve(30, Purpose::Response).expect("free");
        let in_use = [Purpose::Upload, Purpose::Accepted, Purpose::Response].map(used);
        assert_eq!(in_use, [25, 20, 30]);
        let replay = budget.reserve(25, Purpose::Replay).expect("free");
        assert!(budget.reserve(1, Purpose::Replay).is_none());
        assert_eq!(budget.used(), 100);
        response.shrink_to(10);
        assert_eq!((response.bytes(), used(Purpose::Response)), (10, 10));
        drop((upload, accepted, response, replay));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn kept_bytes_can_be_evicted_unless_they_are_read() {
        let budget = Budget::new(100);
        let mut result = budget.reserve(40, Purpose::Response).expect("free");
        let has_evictable = |bytes| budget.has_evictable(bytes, Purpose::Response);
        assert!(!has_evictable(20));
        result.keep();
        assert!(has_evictable(50) && !has_evictable(51));
        assert!(!budget.has_evictable(26, Purpose::Accepted));
        // Larger than the share of replays, and the only one.
        assert!(budget.begin_replay(40));
        assert_eq!(budget.used_for(Purpose::Replay), 40);
        assert!(budget.reserve(36, Purpose::Response).is_none(), "75 - 40");
        assert!(!budget.begin_replay(1));
        budget.end_replay(40);
        assert_eq!(budget.used_for(Purpose::Kept), 40);
        drop(result);
        assert_eq!((budget.used(), budget.used_for(Purpose::Kept)), (0, 0));
    }

    #[test]
    fn parts_of_a_charge_stay_charged() {
        let budget = Budget::new(400);
        let mut charge = budget.reserve(60, Purpose::Accepted).expect("free");
        charge.merge(budget.reserve(10, Purpose::Accepted).expect("free"));
        drop(charge.split(10));
        let (same, bytes) = charge.into_parts();
        assert_eq!((bytes, budget.used()), (60, 60));
        same.release(bytes, Purpose::Accepted);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_lower_limit_keeps_what_is_in_use() {
        let budget = Budget::new(200);
        let charge = budget.reserve(60, Purpose::Response).expect("free");
        budget.set_limit(100);
        assert!(budget.reserve(1, Purpose::Response).is_none());
        assert!(budget.reserve(usize::MAX, Purpose::Upload).is_none());
        drop(charge);
        assert!(budget.reserve(50, Purpose::Response).is_some());
    }
}
