//! A job in memory until it ends.

use std::{
    num::NonZeroU64,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::OwnedNotified};

use super::{
    clock::{Clock, at_unix_millis, since_unix_epoch},
    creation::{Creation, JobScope, StartDelay, StoredProgress},
    ended::{EndedJob, Finish, StoredOutcome, StoredResponse},
    live::LiveResponse,
};
use crate::{
    estimate::Kind,
    job::{ErrorCode, Event, Key, Owner, Progress, Snapshot, Status},
    limit::{Charge, progress_price},
    store::{KeyOutcome, NewJob, News, Report, Revisions},
};

/// The bytes that a job counts beside its record until it ends: about what the layer allocates for
/// its call. The inner service's own allocations are not counted.
const CALL_BYTES: usize = 704;

/// A job until it ends.
///
/// Its entry in the map never points to another job. So a claim ends its job without a look-up, and
/// a follower of the job finds its end here.
pub(super) struct UnfinishedJob {
    pub(super) creation: Creation,
    scope: Option<Box<JobScope>>,
    /// Held for one transition or one copy, never across an await or a wake-up. At the end it is
    /// held until the ended job is in its map. The lock and [`Status::next`] let one task change it
    /// to `Ended`, so a job ends once.
    phase: Mutex<Phase>,
}

enum Phase {
    Unfinished(PhaseState),
    /// The last revision, if the job had readers. It holds no result, so a slow reader
    /// keeps none. The table has the job.
    Ended(Option<Box<Snapshot>>),
}

struct PhaseState {
    revision: u32,
    started: Option<StartDelay>,
    kind: Kind,
    /// In milliseconds since the Unix epoch.
    estimated_finish: Option<NonZeroU64>,
    progress: StoredProgress,
    /// The bytes of the charge that are for the progress: the most that any report needed.
    progress_bytes: u16,
    /// The task that runs the call, which waits for another end of the job.
    canceler: Option<Waker>,
    /// Notified of changes. Created for the first reader.
    watchers: Option<Arc<Notify>>,
    /// The response, once it can be read while it is written.
    live: Option<Arc<LiveResponse>>,
    /// The charge of the job, which moves to the ended job.
    charge: Option<Charge>,
}

/// An end of a job that is ready to be applied.
pub(super) struct Ending {
    /// Its part of a response is added when the ending is applied.
    outcome: StoredOutcome,
    started: Option<u64>,
    progress: Option<StoredProgress>,
    pub(super) key: KeyOutcome,
    /// The revisions at which the job may end so.
    revisions: Revisions,
}

impl Ending {
    /// Creates the end of a call.
    pub(super) fn new(
        outcome: StoredOutcome,
        started: Option<u64>,
        progress: Progress,
        key: KeyOutcome,
    ) -> Self {
        Self {
            outcome,
            started,
            progress: Some(stored(progress)),
            key,
            revisions: Revisions::Any,
        }
    }

    /// Creates the end of a job that is canceled if it has one of these revisions.
    pub(super) fn canceled(revisions: Revisions) -> Self {
        Self {
            revisions,
            ..Self::without_response(ErrorCode::Canceled)
        }
    }

    /// Creates an end that does not come from the call.
    pub(super) fn without_response(code: ErrorCode) -> Self {
        Self {
            outcome: StoredOutcome::NoResponse(code, None),
            started: None,
            progress: None,
            key: KeyOutcome::Keep,
            revisions: Revisions::Any,
        }
    }
}

impl UnfinishedJob {
    /// Creates a job, which holds `charge` of the budget.
    pub(super) fn new(new: &NewJob, charge: Charge, clock: &Clock) -> Self {
        let creation = Creation {
            id: new.id,
            created: clock.millis(new.created),
            created_at: since_unix_epoch(new.created_at),
        };
        let started = new.started.map(|started| clock.millis(started));
        Self {
            creation,
            scope: scope(new),
            phase: Mutex::new(Phase::Unfinished(PhaseState {
                revision: 1,
                kind: new.kind.clone(),
                started: started.map(|at| creation.start_delay(at)),
                estimated_finish: new.estimated_finish.and_then(stored_time),
                progress: stored(new.progress.clone()),
                progress_bytes: stored_price(&new.progress),
                canceler: None,
                watchers: None,
                live: None,
                charge: Some(charge),
            })),
        }
    }

    /// Returns the bytes that a job created from `new` counts in the budget until it ends.
    pub(super) fn price(new: &NewJob) -> usize {
        JobScope::cost(scope(new).as_deref()) + CALL_BYTES + progress_price(&new.progress)
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.scope.as_ref()?.owner
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.scope.as_ref()?.key
    }

    /// Returns the effect on the job's key if its call is dropped now.
    pub(super) fn dropped_key_outcome(&self) -> KeyOutcome {
        let Some(scope) = self.scope.as_deref().filter(|scope| scope.key.is_some()) else {
            return KeyOutcome::Keep;
        };
        let is_reached = match &*self.phase.lock() {
            Phase::Unfinished(job) => job.started.is_some(),
            Phase::Ended(_) => true,
        };
        if is_reached && scope.outcomes.keeps(ErrorCode::Shutdown.status()) {
            KeyOutcome::Keep
        } else {
            KeyOutcome::Release
        }
    }

    /// Stores what has changed. `reserve` takes bytes of the budget.
    ///
    /// Without room for a message, the job keeps the fraction alone.
    pub(super) fn report(
        &self,
        mut report: Report,
        clock: &Clock,
        reserve: impl FnOnce(usize) -> Option<Charge>,
    ) {
        // Outside of the lock, since this may evict jobs.
        let missing = self.missing_bytes(&report.news);
        let mut more = (missing > 0).then(|| reserve(missing)).flatten();
        if let News::Progress(progress) = &mut report.news
            && missing > 0
            && more.is_none()
        {
            progress.message = None;
            progress.title = None;
        }
        // `more` is dropped after the guard, because that may wake a response.
        let watchers = match &mut *self.phase.lock() {
            Phase::Ended(_) => return,
            Phase::Unfinished(job) => {
                job.revision += 1;
                job.estimated_finish = report.estimated_finish.and_then(stored_time);
                match report.news {
                    News::Started(at) => {
                        if job.status().next(Event::Started).is_some() {
                            job.started = Some(self.creation.start_delay(clock.millis(at)));
                        }
                    }
                    News::Progress(progress) => {
                        if let (Some(more), Some(charge)) = (more.take(), &mut job.charge) {
                            job.progress_bytes += u16::try_from(missing).unwrap_or(0);
                            charge.merge(more);
                        }
                        job.progress = with_title(stored(progress), &mut job.progress);
                    }
                }
                job.watchers.clone()
            }
        };
        if let Some(watchers) = watchers {
            watchers.notify_waiters();
        }
    }

    /// Returns the bytes that a report needs beyond those that earlier ones were charged. One call
    /// makes all reports of a job, one after the other.
    fn missing_bytes(&self, news: &News) -> usize {
        let News::Progress(progress) = news else {
            return 0;
        };
        match &*self.phase.lock() {
            Phase::Unfinished(job) => {
                let missing = stored_price(progress).saturating_sub(job.progress_bytes);
                missing.into()
            }
            Phase::Ended(_) => 0,
        }
    }

    /// Makes the response readable while it is written.
    pub(super) fn publish(&self, live: Arc<LiveResponse>) {
        let watchers = match &mut *self.phase.lock() {
            Phase::Ended(_) => return,
            Phase::Unfinished(job) => {
                job.live = Some(live);
                job.watchers.clone()
            }
        };
        if let Some(watchers) = watchers {
            watchers.notify_waiters();
        }
    }

    /// Ends the job, and passes it to `keep` before a reader can see that it has ended. Returns
    /// `None` if it had ended before, or has another revision than the ending allows.
    pub(super) fn end(
        &self,
        mut ending: Ending,
        clock: &Clock,
        keep: impl FnOnce(EndedJob),
    ) -> Option<EndedJob> {
        let (ended, before) = {
            let mut phase = self.phase.lock();
            let Phase::Unfinished(job) = &mut *phase else {
                return None;
            };
            if !ending.revisions.contains(job.revision.into()) {
                return None;
            }
            let status = job.status().next(ending.outcome.event())?;
            let charge = job.charge.take()?;
            if let (StoredOutcome::NoResponse(_, part), Some(live)) =
                (&mut ending.outcome, &job.live)
            {
                live.close();
                *part = Some(StoredResponse::from_live(live));
            }
            let finish = Finish {
                revision: job.revision + 1,
                status,
                started: ending
                    .started
                    .map(|at| self.creation.start_delay(at))
                    .or(job.started),
                finished: clock.now(),
                progress: match ending.progress {
                    Some(progress) => with_title(progress, &mut job.progress),
                    None => std::mem::take(&mut job.progress),
                },
                outcome: ending.outcome,
                charge,
            };
            let ended = EndedJob::new(self.creation, self.scope.clone(), finish);
            keep(ended.clone());
            let is_watched = job.watchers.is_some();
            let last = is_watched.then(|| Box::new(ended.snapshot(clock, clock.now())));
            let before = std::mem::replace(&mut *phase, Phase::Ended(last));
            (ended, before)
        };
        if let Phase::Unfinished(job) = before {
            if let Some(canceler) = job.canceler {
                canceler.wake();
            }
            if let Some(live) = job.live {
                live.notify();
            }
            if let Some(watchers) = job.watchers {
                watchers.notify_waiters();
            }
        }
        Some(ended)
    }

    pub(super) fn is_unfinished(&self) -> bool {
        matches!(&*self.phase.lock(), Phase::Unfinished(_))
    }

    /// Completes when the job has ended.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut *self.phase.lock() {
            Phase::Ended(_) => Poll::Ready(()),
            Phase::Unfinished(job) => {
                match &mut job.canceler {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Returns the job, or `None` if it has ended and only the table may have it.
    pub(super) fn snapshot(&self, now: u64) -> Option<Snapshot> {
        self.snapshot_of(&self.phase.lock(), now)
    }

    /// Adds a reader of the job's revisions, which gets the last one even if the job is removed.
    pub(super) fn watch(&self) {
        if let Phase::Unfinished(job) = &mut *self.phase.lock() {
            job.watchers.get_or_insert_default();
        }
    }

    /// Returns the job if its revision is beyond `seen`, otherwise the next change to wait for.
    /// It is absent as in [`snapshot`](Self::snapshot).
    ///
    /// Both happen under the lock, so no change is missed between them.
    pub(super) fn newer_than(&self, seen: u64, now: u64) -> Readiness<Snapshot> {
        let mut phase = self.phase.lock();
        if let Phase::Unfinished(job) = &mut *phase
            && u64::from(job.revision) <= seen
        {
            return Readiness::Wait(job.next_change());
        }
        match self.snapshot_of(&phase, now) {
            Some(job) => Readiness::Ready(job),
            None => Readiness::Ended,
        }
    }

    /// Returns the response that can be read, otherwise the next change to wait for.
    pub(super) fn response(&self) -> Readiness<Arc<LiveResponse>> {
        match &mut *self.phase.lock() {
            Phase::Ended(_) => Readiness::Ended,
            Phase::Unfinished(job) => match &job.live {
                Some(live) => Readiness::Ready(live.clone()),
                None => Readiness::Wait(job.next_change()),
            },
        }
    }

    fn snapshot_of(&self, phase: &Phase, now: u64) -> Option<Snapshot> {
        let job = match phase {
            Phase::Ended(last) => {
                let mut last = Snapshot::clone(last.as_deref()?);
                last.age = Duration::from_millis(now.saturating_sub(self.creation.created));
                return Some(last);
            }
            Phase::Unfinished(job) => job,
        };
        let mut snapshot = self.creation.snapshot(self.scope.as_deref(), now);
        snapshot.revision = job.revision.into();
        snapshot.status = job.status();
        snapshot.attempt = job.started.is_some().into();
        snapshot.started_at = job.started.map(|delay| self.creation.started_at(delay));
        snapshot.kind = Some(job.kind.clone());
        snapshot.estimated_finish_at = job.estimated_finish.map(|at| at_unix_millis(at.get()));
        if let Some(progress) = job.progress.as_deref() {
            snapshot.set_progress(progress.clone());
        }
        Some(snapshot)
    }
}

/// A value that is ready, or the change to wait for before the next attempt.
pub(super) enum Readiness<T> {
    Ready(T),
    Wait(OwnedNotified),
    /// The job has ended. The table has it, unless it has been removed.
    Ended,
}

impl PhaseState {
    fn status(&self) -> Status {
        match self.started {
            None => Status::Queued,
            Some(_) => Status::Running,
        }
    }

    fn next_change(&mut self) -> OwnedNotified {
        let watchers = self.watchers.get_or_insert_default();
        watchers.clone().notified_owned()
    }
}

fn scope(new: &NewJob) -> Option<Box<JobScope>> {
    let key = new.key.map(|new| new.key);
    let outcomes = new.key.map(|new| new.outcomes);
    let has_scope =
        new.owner.is_some() || key.is_some() || new.title.is_some() || new.callbacks.is_some();
    has_scope.then(|| {
        Box::new(JobScope {
            owner: new.owner,
            key,
            outcomes: outcomes.unwrap_or_default(),
            title: new.title.clone(),
            callbacks: new.callbacks.clone(),
        })
    })
}

/// Returns the price of progress. A message has at most 512 bytes, and a title 200 characters.
fn stored_price(progress: &Progress) -> u16 {
    u16::try_from(progress_price(progress)).unwrap_or(u16::MAX)
}

/// Returns a time as it is stored. The Unix epoch itself is not stored.
fn stored_time(at: SystemTime) -> Option<NonZeroU64> {
    NonZeroU64::new(since_unix_epoch(at))
}

/// Adds the title that was reported before, unless there is a new one.
fn with_title(progress: StoredProgress, before: &mut StoredProgress) -> StoredProgress {
    let title = before.as_mut().and_then(|before| before.title.take());
    if title.is_none() {
        return progress;
    }
    let mut progress = progress.unwrap_or_default();
    progress.title = progress.title.or(title);
    Some(progress)
}

fn stored(progress: Progress) -> StoredProgress {
    (progress != Progress::default()).then(|| Box::new(progress))
}
