use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::OwnedNotified};

use super::{
    clock::{Clock, at_unix_millis, since_unix_epoch},
    ended::{Ended, Finish},
    packed::Packed,
};
use crate::{
    config::Key,
    estimate::Kind,
    job::{Cursor, ErrorCode, Event, JobId, Owner, Progress, Snapshot, Status},
    limit::Charge,
    store::{End, NewJob, News, Outcome, Report},
};

/// What a job counts in the budget besides its result: about what it takes of the heap.
const JOB_BYTES: usize = 320;

/// What it counts more where it has an owner or a key, for these and the indexes they are in.
const BOUND_BYTES: usize = 192;

/// One job until it ends. Its place in the map never changes what it points to, so a claim ends its job
/// without looking it up, and whoever follows it finds its end here.
pub(super) struct Job {
    pub(super) birth: Birth,
    bound: Option<Box<Bound>>,
    /// Held for one transition or one copy, never across an await or a wake-up; at the end, until what is
    /// kept of the job has been put together and is in the map of ended jobs. Whoever moves it to `Ended` has
    /// ended the job: that there is one end follows from the lock and [`Status::next`].
    phase: Mutex<Phase>,
}

/// What every job has, and never changes.
#[derive(Clone, Copy)]
pub(super) struct Birth {
    pub(super) id: JobId,
    /// In milliseconds since the epoch of the store.
    pub(super) created: u64,
    /// In milliseconds since the epoch of Unix.
    pub(super) created_at: u64,
}

/// To whom and to which request a job is bound.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) owner: Option<Owner>,
    pub(super) key: Option<Key>,
}

enum Phase {
    Unfinished(Unfinished),
    Ended(Ended),
}

struct Unfinished {
    revision: u32,
    began: Option<Began>,
    kind: Kind,
    /// In milliseconds since the epoch of Unix.
    estimated_finish: Option<NonZeroU64>,
    progress: Told,
    /// Who waits for somebody else to end the job: the task that runs the call.
    canceler: Option<Waker>,
    /// Whom to tell of changes; made for the first who wants to know.
    watchers: Option<Arc<Notify>>,
}

/// After how many milliseconds a job's call began; counted from 1, so that none takes no room of its own. Any more
/// than 49 days are 49 days.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began(NonZeroU32);

/// What a call has told of its progress. Boxed, since most tell nothing, and a job would have room for it
/// for as long as it is kept.
pub(super) type Told = Option<Box<Progress>>;

impl Birth {
    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            created_at: self.created_at,
            id: self.id,
        }
    }

    /// A time by the clock on the wall, of one by that of the store.
    pub(super) fn shown(&self, at: u64) -> SystemTime {
        let age = Duration::from_millis(at.saturating_sub(self.created));
        at_unix_millis(self.created_at) + age
    }

    /// What is kept of when its call began, by the clock of the store.
    fn began(&self, at: u64) -> Began {
        let millis = u32::try_from(at.saturating_sub(self.created)).unwrap_or(u32::MAX);
        Began(NonZeroU32::MIN.saturating_add(millis))
    }

    /// When its call began.
    pub(super) fn started_at(&self, Began(after): Began) -> SystemTime {
        self.shown(self.created + u64::from(after.get() - 1))
    }

    /// The job as far as that never changes.
    pub(super) fn snapshot(&self, owner: Option<Owner>, clock: &Clock) -> Snapshot {
        Snapshot {
            id: self.id,
            owner,
            revision: 0,
            status: Status::Queued,
            created: clock.instant(self.created),
            created_at: at_unix_millis(self.created_at),
            started_at: None,
            finished_at: None,
            expires_at: None,
            kind: None,
            estimated_finish_at: None,
            progress: Progress::default(),
            response: None,
            error: None,
        }
    }
}

/// What a job counts in the budget, its result apart.
pub(super) fn cost(is_bound: bool) -> usize {
    JOB_BYTES + if is_bound { BOUND_BYTES } else { 0 }
}

impl Job {
    /// What a job made of `new` counts in the budget until it has a result.
    pub(super) fn cost(new: &NewJob) -> usize {
        cost(new.owner.is_some() || new.key.is_some())
    }

    pub(super) fn new(new: &NewJob, clock: &Clock) -> Self {
        let key = new.key.map(|(key, _)| key);
        let is_bound = new.owner.is_some() || key.is_some();
        let owner = new.owner;
        let birth = Birth {
            id: new.id,
            created: clock.millis(new.created),
            created_at: since_unix_epoch(new.created_at),
        };
        let started = new.started.map(|started| clock.millis(started));
        Self {
            birth,
            bound: is_bound.then(|| Box::new(Bound { owner, key })),
            phase: Mutex::new(Phase::Unfinished(Unfinished {
                revision: 1,
                kind: new.kind.clone(),
                began: started.map(|at| birth.began(at)),
                estimated_finish: new.estimated_finish.and_then(kept_time),
                progress: told(new.progress.clone()),
                canceler: None,
                watchers: None,
            })),
        }
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.bound.as_ref()?.owner
    }

    /// The job as it has ended, if it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        match &*self.phase.lock() {
            Phase::Ended(ended) => Some(ended.clone()),
            Phase::Unfinished(_) => None,
        }
    }

    pub(super) fn report(&self, report: Report, clock: &Clock) {
        let watchers = match &mut *self.phase.lock() {
            Phase::Ended(_) => return,
            Phase::Unfinished(job) => {
                job.revision += 1;
                job.estimated_finish = report.estimated_finish.and_then(kept_time);
                match report.news {
                    News::Started(at) => {
                        if job.status().next(Event::Started).is_some() {
                            job.began = Some(self.birth.began(clock.millis(at)));
                        }
                    }
                    News::Progress(progress) => job.progress = told(progress),
                }
                job.watchers.clone()
            }
        };
        if let Some(watchers) = watchers {
            watchers.notify_waiters();
        }
    }

    /// Ends the job, and hands on what is to be kept of it before anybody can see that it has ended; `false`
    /// if it had ended before.
    pub(super) fn end(&self, ending: Ending, clock: &Clock, keep: impl FnOnce(Ended)) -> bool {
        let before = {
            let mut phase = self.phase.lock();
            let Phase::Unfinished(job) = &mut *phase else {
                return false;
            };
            let Some(status) = job.status().next(ending.event) else {
                return false;
            };
            let finish = Finish {
                revision: job.revision + 1,
                status,
                began: ending.started.map(|at| self.birth.began(at)).or(job.began),
                finished: clock.now(),
                progress: ending
                    .progress
                    .unwrap_or_else(|| std::mem::take(&mut job.progress)),
                kept: ending.kept,
            };
            let ended = Ended::new(self.birth, self.bound.as_deref().copied(), finish);
            keep(ended.clone());
            std::mem::replace(&mut *phase, Phase::Ended(ended))
        };
        if let Phase::Unfinished(job) = before {
            if let Some(canceler) = job.canceler {
                canceler.wake();
            }
            if let Some(watchers) = job.watchers {
                watchers.notify_waiters();
            }
        }
        true
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

    pub(super) fn snapshot(&self, clock: &Clock) -> Snapshot {
        self.at(&self.phase.lock(), clock)
    }

    /// The job as it is, if its revision is beyond `seen`; else the next change to wait for. Both under
    /// the lock, so that no change is missed between looking and waiting.
    pub(super) fn newer_than(&self, seen: u64, clock: &Clock) -> Result<Snapshot, OwnedNotified> {
        let mut phase = self.phase.lock();
        if let Phase::Unfinished(job) = &mut *phase
            && u64::from(job.revision) <= seen
        {
            let watchers = job.watchers.get_or_insert_default();
            return Err(watchers.clone().notified_owned());
        }
        Ok(self.at(&phase, clock))
    }

    fn at(&self, phase: &Phase, clock: &Clock) -> Snapshot {
        match phase {
            Phase::Unfinished(job) => Snapshot {
                revision: job.revision.into(),
                status: job.status(),
                started_at: job.began.map(|began| self.birth.started_at(began)),
                kind: Some(job.kind.clone()),
                estimated_finish_at: job.estimated_finish.map(|at| at_unix_millis(at.get())),
                progress: shown_progress(&job.progress),
                ..self.birth.snapshot(self.owner(), clock)
            },
            Phase::Ended(ended) => ended.snapshot(clock),
        }
    }
}

impl Unfinished {
    fn status(&self) -> Status {
        match self.began {
            None => Status::Queued,
            Some(_) => Status::Running,
        }
    }
}

/// What is kept of what a job came to.
pub(super) enum Kept {
    /// A response, and what it holds of the budget.
    Response(Packed, Option<Charge>),
    Nothing(ErrorCode),
}

/// A job's end, ready to be put into it.
pub(super) struct Ending {
    event: Event,
    kept: Kept,
    started: Option<u64>,
    progress: Option<Told>,
}

impl Ending {
    pub(super) fn new(end: End, clock: &Clock) -> Self {
        let ending = match end.outcome {
            Outcome::Broke(code) => Self::early(code),
            Outcome::Response(response) => {
                let (head, body) = response.into_parts();
                let trailers = body.trailers.as_deref();
                let packed = Packed::new(head.status, &head.headers, trailers, body.bytes);
                Self {
                    event: Event::Responded(head.status),
                    kept: Kept::Response(packed, body.charge),
                    started: None,
                    progress: None,
                }
            }
        };
        Self {
            started: end.started.map(|at| clock.millis(at)),
            progress: Some(told(end.progress)),
            ..ending
        }
    }

    /// An end that comes from elsewhere than from the call.
    pub(super) fn early(code: ErrorCode) -> Self {
        Self {
            event: Event::Broke(code),
            kept: Kept::Nothing(code),
            started: None,
            progress: None,
        }
    }
}

/// What is kept of a time to come; of the epoch of Unix nothing.
fn kept_time(at: SystemTime) -> Option<NonZeroU64> {
    NonZeroU64::new(since_unix_epoch(at))
}

fn told(progress: Progress) -> Told {
    (progress != Progress::default()).then(|| Box::new(progress))
}

pub(super) fn shown_progress(told: &Told) -> Progress {
    told.as_deref().cloned().unwrap_or_default()
}
