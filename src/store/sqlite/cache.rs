//! The jobs that this process runs, follows or has just ended, in memory.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    clock::{Millis, unix_millis},
    output::FlushedOutput,
    row::JobRow,
};
use crate::{JobId, Progress, Snapshot};

/// The number of ended jobs that stay in memory. The oldest ends leave first.
const MAX_ENDED: usize = 16_384;

/// The jobs whose current revision is in memory.
///
/// Only the writer's thread publishes revisions of jobs that are in here, in the order of their
/// commits. So a job in here is as the file has it, except for the changes of others since the
/// last poll.
///
/// Guards of the map are held for one operation. The order of locks is the map, then a job's.
#[derive(Debug, Default)]
pub(super) struct Cache {
    jobs: DashMap<JobId, Arc<CachedJob>>,
    /// Held for one push and one pop.
    ended: Mutex<VecDeque<JobId>>,
}

/// A job whose current revision is in memory.
#[derive(Debug)]
pub(super) struct CachedJob {
    pub(super) id: JobId,
    state: watch::Sender<CachedState>,
    /// Held for a look or an assignment.
    claim: Mutex<Option<HeldClaim>>,
    /// Notified after each change of the job or its output.
    pub(super) output_changed: Notify,
    /// Held for a merge or a swap.
    report: Mutex<UnwrittenReport>,
    /// Set by the writer's thread once it is among the ended jobs. Read and written under the map's
    /// guard, so `Relaxed` is enough.
    is_kept: AtomicBool,
}

/// The state of a cached job.
#[derive(Debug, Clone)]
pub(super) enum CachedState {
    /// A stream follows it, and it has not been read yet.
    Unread,
    Known(Arc<Snapshot>),
    /// It was deleted or has expired.
    Gone,
}

/// The claim of this process on a job.
#[derive(Debug)]
struct HeldClaim {
    claim: i64,
    lost: CancellationToken,
    /// The response of its call, once it was flushed.
    output: Option<Arc<FlushedOutput>>,
}

/// Reports since the last write of a job, merged into one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct UnwrittenReport {
    pub(super) started: Option<Millis>,
    pub(super) progress: Option<Progress>,
    pub(super) estimated_finish: Option<Millis>,
}

impl UnwrittenReport {
    /// Fills in from an earlier report what this one does not set.
    fn or(self, earlier: Self) -> Self {
        Self {
            started: self.started.or(earlier.started),
            progress: self.progress.or(earlier.progress),
            estimated_finish: self.estimated_finish.or(earlier.estimated_finish),
        }
    }
}

impl Cache {
    /// Returns the current revision of a job, or `None` if only the file has it.
    pub(super) fn get(&self, id: JobId, now: Millis) -> Option<Snapshot> {
        // The guard is released with this statement.
        let known = self.jobs.get(&id)?.known()?;
        if known.expires_at.is_some_and(|at| unix_millis(at) <= now) {
            return None;
        }
        Some(aged(&known))
    }

    /// Returns the job if it is in memory.
    pub(super) fn find(&self, id: JobId) -> Option<Arc<CachedJob>> {
        self.jobs.get(&id).map(|job| job.clone())
    }

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.jobs.iter().map(|job| *job.key()).collect()
    }

    /// Records a committed claim of this process. Only the writer's thread calls it, in order with
    /// [`publish`](Self::publish).
    pub(super) fn hold(&self, row: &JobRow, claim: i64) {
        let held = HeldClaim {
            claim,
            lost: CancellationToken::new(),
            output: None,
        };
        let job = {
            let new = || Arc::new(CachedJob::new(row.id));
            let job = self.jobs.entry(row.id).or_insert_with(new);
            // Under the map's guard: until this is set, a follower that leaves removes the job.
            *job.claim.lock() = Some(held);
            job.clone()
        };
        job.publish(row.snapshot());
    }

    /// Returns the job of a claim that was recorded, and the claim's token. The token is cancelled
    /// if the claim is lost already.
    pub(super) fn held(&self, id: JobId, claim: i64) -> (Arc<CachedJob>, CancellationToken) {
        // A job that was deleted meanwhile is not in the map, and need not be.
        let job = self
            .find(id)
            .unwrap_or_else(|| Arc::new(CachedJob::new(id)));
        let lost = job.lost_token(claim);
        (job, lost)
    }

    /// Publishes a committed revision, if the job is in memory. Only the writer's thread calls it,
    /// so that revisions are published in the order of their commits.
    pub(super) fn publish(&self, row: &JobRow) {
        let Some(job) = self.find(row.id) else {
            return;
        };
        job.publish(row.snapshot());
        job.lose_claim_unless(|claim| row.is_held_by(claim));
        if row.is_ended() {
            self.keep_ended(row.id);
        } else if row.process.is_none() {
            self.leave(&job);
        }
        job.output_changed.notify_waiters();
    }

    /// Wakes the readers of a job's output.
    pub(super) fn announce_output(&self, id: JobId) {
        if let Some(job) = self.find(id) {
            job.output_changed.notify_waiters();
        }
    }

    /// Removes a job that is no longer in the file. An unfinished one was canceled first.
    pub(super) fn remove(&self, id: JobId) {
        if let Some((_, job)) = self.jobs.remove(&id) {
            job.state.send_if_modified(|state| {
                let is_open = match state {
                    CachedState::Known(job) => !job.status.is_ended(),
                    CachedState::Unread => true,
                    CachedState::Gone => false,
                };
                if is_open {
                    *state = CachedState::Gone;
                }
                is_open
            });
            job.lose_claim_unless(|_| false);
            job.output_changed.notify_waiters();
        }
    }

    fn keep_ended(&self, id: JobId) {
        match self.jobs.get(&id) {
            Some(job) if !job.is_kept.swap(true, Ordering::Relaxed) => {}
            _ => return,
        }
        let oldest = {
            let mut ended = self.ended.lock();
            ended.push_back(id);
            let is_full = ended.len() > MAX_ENDED;
            is_full.then(|| ended.pop_front()).flatten()
        };
        if let Some(oldest) = oldest {
            self.jobs.remove(&oldest);
        }
    }

    /// Follows a job. [`CachedJob::load`] must follow if it is unread.
    pub(super) fn follow(&self, id: JobId) -> (Arc<CachedJob>, watch::Receiver<CachedState>) {
        let new = || Arc::new(CachedJob::new(id));
        let job = self.jobs.entry(id).or_insert_with(new);
        (job.clone(), job.state.subscribe())
    }

    /// Removes a job that another process runs, unless a stream still follows it.
    pub(super) fn leave(&self, job: &CachedJob) {
        self.jobs.remove_if(&job.id, |_, job| job.is_unused());
    }
}

impl CachedJob {
    fn new(id: JobId) -> Self {
        Self {
            id,
            state: watch::Sender::new(CachedState::Unread),
            claim: Mutex::new(None),
            output_changed: Notify::new(),
            report: Mutex::default(),
            is_kept: AtomicBool::new(false),
        }
    }

    fn known(&self) -> Option<Arc<Snapshot>> {
        match &*self.state.borrow() {
            CachedState::Known(job) => Some(job.clone()),
            CachedState::Unread | CachedState::Gone => None,
        }
    }

    /// Sets the state that was read from the file, unless a later one has been published.
    pub(super) fn load(&self, read: Option<Snapshot>) {
        match read {
            Some(job) => self.publish(job),
            None => {
                self.state.send_if_modified(|state| {
                    let is_unread = matches!(state, CachedState::Unread);
                    if is_unread {
                        *state = CachedState::Gone;
                    }
                    is_unread
                });
            }
        }
    }

    fn publish(&self, job: Snapshot) {
        self.state.send_if_modified(|state| {
            let is_newer = match state {
                CachedState::Unread => true,
                CachedState::Known(known) => known.revision < job.revision,
                CachedState::Gone => false,
            };
            if is_newer {
                *state = CachedState::Known(Arc::new(job));
            }
            is_newer
        });
    }

    fn lost_token(&self, claim: i64) -> CancellationToken {
        let held = self.claim.lock();
        let held = held.as_ref().filter(|held| held.claim == claim);
        held.map(|held| held.lost.clone()).unwrap_or_else(|| {
            let lost = CancellationToken::new();
            lost.cancel();
            lost
        })
    }

    /// Marks this claim as lost.
    pub(super) fn lose_claim(&self, claim: i64) {
        self.lose_claim_unless(|held| held != claim);
    }

    fn lose_claim_unless(&self, is_held: impl FnOnce(i64) -> bool) {
        let mut held = self.claim.lock();
        if let Some(claim) = held.take_if(|held| !is_held(held.claim)) {
            claim.lost.cancel();
        }
    }

    /// Returns `true` if neither a claim nor a follower needs it, and it is not kept.
    fn is_unused(&self) -> bool {
        let is_kept = self.is_kept.load(Ordering::Relaxed);
        self.state.receiver_count() == 0 && self.claim.lock().is_none() && !is_kept
    }

    /// Merges a report into the pending one. Returns `true` if there was none.
    pub(super) fn report(&self, report: UnwrittenReport) -> bool {
        let mut pending = self.report.lock();
        let was_empty = *pending == UnwrittenReport::default();
        *pending = report.or(mem::take(&mut *pending));
        was_empty
    }

    /// Makes a report pending again that could not be written. Returns `true` if there was none.
    pub(super) fn put_back(&self, report: UnwrittenReport) -> bool {
        let mut pending = self.report.lock();
        let was_empty = *pending == UnwrittenReport::default();
        *pending = mem::take(&mut *pending).or(report);
        was_empty
    }

    /// Takes the pending report.
    pub(super) fn take_report(&self) -> UnwrittenReport {
        mem::take(&mut *self.report.lock())
    }

    /// Returns the start of the call, if it was reported and is not written yet.
    pub(super) fn unwritten_start(&self) -> Option<Millis> {
        self.report.lock().started
    }

    /// Lets readers find the output of a claim, until the claim is lost.
    pub(super) fn set_output(&self, output: &Arc<FlushedOutput>) {
        let mut held = self.claim.lock();
        if let Some(held) = held.as_mut().filter(|held| held.claim == output.claim) {
            held.output = Some(output.clone());
        }
    }

    /// Returns the output of the call that this process runs.
    pub(super) fn output(&self) -> Option<Arc<FlushedOutput>> {
        self.claim.lock().as_ref()?.output.clone()
    }

    /// Returns this process's claim.
    pub(super) fn claim(&self) -> Option<i64> {
        self.claim.lock().as_ref().map(|held| held.claim)
    }
}

/// Copies a snapshot, with the age that the job has now.
pub(super) fn aged(job: &Snapshot) -> Snapshot {
    let mut job = job.clone();
    job.age = job.created_at.elapsed().unwrap_or_default();
    job
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;
    use crate::{
        ErrorCode, Event,
        store::{NewJob, sqlite::options::SqliteOptions},
    };

    fn new_row() -> JobRow {
        JobRow::new(&NewJob::new(JobId::random()), true, &SqliteOptions::new())
    }

    #[test]
    fn ended_job_is_kept_once() {
        let cache = Cache::default();
        let mut row = new_row();
        let claim = row.hold(1);
        cache.hold(&row, claim);
        let canceled = Event::NoResponse(ErrorCode::Canceled);
        row.end(canceled, 0);
        for _ in 0..2 {
            cache.publish(&row);
        }
        assert_eq!(*cache.ended.lock(), [row.id]);
    }

    #[test]
    fn follower_that_leaves_keeps_a_claimed_job() {
        const ROUNDS: usize = 1_000;
        let cache = Cache::default();
        let rows: Vec<JobRow> = (0..ROUNDS).map(|_| new_row()).collect();
        let (start, done) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                for row in &rows {
                    start.wait();
                    for _ in 0..4 {
                        let (job, changes) = cache.follow(row.id);
                        drop(changes);
                        cache.leave(&job);
                    }
                    done.wait();
                }
            });
            let mut lost = 0;
            for row in &rows {
                start.wait();
                cache.hold(row, 1);
                done.wait();
                let claim = cache.find(row.id).and_then(|job| job.claim());
                lost += usize::from(claim != Some(1));
            }
            assert_eq!(lost, 0);
        });
    }
}
