use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

use super::packed::{Packed, Unpacked};
use crate::{
    budget::Charge,
    estimate::Kind,
    idempotency::Key,
    job::{ErrorCode, Event, Failure, JobId, Progress, ResponseHead, Snapshot, Status},
    list::Cursor,
    owner::Owner,
    store::{Change, End, NewJob, Outcome, What},
};

/// What a job counts in the budget besides its result: about what it takes of the heap.
const JOB_BYTES: usize = 320;

/// What it counts more where it has an owner or a key, for these and the indexes they are in.
const BOUND_BYTES: usize = 192;

/// One job. Its place in the map never changes what it points to, so a claim ends its job without
/// looking it up.
pub(super) struct Job {
    /// In milliseconds since the epoch of the store.
    created: u64,
    /// In milliseconds since the epoch of Unix.
    created_at: u64,
    bound: Option<Box<Bound>>,
    /// Held for one transition or one copy, never across an await or a wake-up. Whoever moves it to
    /// `Ended` has ended the job: that there is one end follows from the lock and
    /// [`Status::next`].
    phase: Mutex<Phase>,
}

/// To whom and to which request a job is bound.
struct Bound {
    owner: Option<Owner>,
    key: Option<Key>,
}

enum Phase {
    Unfinished(Unfinished),
    Ended(Ended),
}

struct Unfinished {
    revision: u32,
    kind: Kind,
    started: Option<u64>,
    /// In milliseconds since the epoch of Unix.
    estimated_finish: Option<u64>,
    progress: Told,
    /// Who waits for somebody else to end the job: the task that runs the call.
    canceler: Option<Waker>,
    /// Whom to tell of changes; made for the first who wants to know.
    watchers: Option<Arc<Notify>>,
}

struct Ended {
    revision: u32,
    status: Status,
    /// What it holds of the budget for its result, to be released by who removes the job.
    charged: usize,
    started: Option<u64>,
    finished: u64,
    progress: Told,
    kept: Kept,
}

/// What a call has told of its progress. Boxed, since most tell nothing, and a job would have room for it
/// for as long as it is kept.
type Told = Option<Box<Progress>>;

enum Kept {
    Response(Packed),
    Nothing(ErrorCode),
}

/// Counts milliseconds from the making of a store, and for how long it keeps what has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    epoch: Instant,
    retain: u64,
}

impl Clock {
    pub(super) fn new(retain: Duration) -> Self {
        Self {
            epoch: Instant::now(),
            retain: whole_millis(retain),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.millis(Instant::now())
    }

    pub(super) fn millis(&self, at: Instant) -> u64 {
        whole_millis(at.saturating_duration_since(self.epoch))
    }

    pub(super) fn instant(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    pub(super) fn expiry(&self, finished: u64) -> u64 {
        finished.saturating_add(self.retain)
    }
}

impl Job {
    /// What a job made of `new` counts in the budget until it has a result.
    pub(super) fn cost(new: &NewJob) -> usize {
        match (&new.owner, &new.key) {
            (None, None) => JOB_BYTES,
            _ => JOB_BYTES + BOUND_BYTES,
        }
    }

    pub(super) fn new(new: &NewJob, clock: &Clock) -> Self {
        let key = new.key.map(|(key, _)| key);
        let is_bound = new.owner.is_some() || key.is_some();
        Self {
            created: clock.millis(new.created),
            created_at: since_unix_epoch(new.created_at),
            bound: is_bound.then(|| {
                Box::new(Bound {
                    owner: new.owner,
                    key,
                })
            }),
            phase: Mutex::new(Phase::Unfinished(Unfinished {
                revision: 1,
                kind: new.kind.clone(),
                started: new.started.map(|started| clock.millis(started)),
                estimated_finish: new.estimated_finish.map(since_unix_epoch),
                progress: told(new.progress.clone()),
                canceler: None,
                watchers: None,
            })),
        }
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.bound.as_ref()?.owner
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.bound.as_ref()?.key
    }

    pub(super) fn cursor(&self, id: JobId) -> Cursor {
        Cursor {
            created_at: self.created_at,
            id,
        }
    }

    pub(super) fn is_expired(&self, clock: &Clock) -> bool {
        match &*self.phase.lock() {
            Phase::Ended(ended) => clock.expiry(ended.finished) <= clock.now(),
            Phase::Unfinished(_) => false,
        }
    }

    /// What the job holds of the budget; `None` while it is unfinished.
    pub(super) fn charged(&self) -> Option<usize> {
        let bound = self.bound.as_ref().map_or(0, |_| BOUND_BYTES);
        match &*self.phase.lock() {
            Phase::Ended(ended) => Some(JOB_BYTES + bound + ended.charged),
            Phase::Unfinished(_) => None,
        }
    }

    pub(super) fn result(&self) -> Option<Unpacked> {
        match &*self.phase.lock() {
            Phase::Ended(Ended {
                kept: Kept::Response(packed),
                ..
            }) => Some(packed.unpack()),
            _ => None,
        }
    }

    pub(super) fn report(&self, change: Change, clock: &Clock) {
        let watchers = match &mut *self.phase.lock() {
            Phase::Ended(_) => return,
            Phase::Unfinished(job) => {
                job.revision += 1;
                job.estimated_finish = change.estimated_finish.map(since_unix_epoch);
                match change.what {
                    What::Started(at) => {
                        if job.status().next(Event::Started).is_some() {
                            job.started = Some(clock.millis(at));
                        }
                    }
                    What::Progress(progress) => job.progress = told(progress),
                }
                job.watchers.clone()
            }
        };
        if let Some(watchers) = watchers {
            watchers.notify_waiters();
        }
    }

    /// Ends the job, and returns when it expires; `None` if it had ended before.
    pub(super) fn end(&self, ending: Ending, clock: &Clock) -> Option<u64> {
        let finished = clock.now();
        let before = {
            let mut phase = self.phase.lock();
            let Phase::Unfinished(job) = &mut *phase else {
                return None;
            };
            let ended = Phase::Ended(Ended {
                revision: job.revision + 1,
                status: job.status().next(ending.event)?,
                charged: ending.charge.map_or(0, Charge::keep),
                started: ending.started.or(job.started),
                finished,
                progress: ending
                    .progress
                    .unwrap_or_else(|| std::mem::take(&mut job.progress)),
                kept: ending.kept,
            });
            std::mem::replace(&mut *phase, ended)
        };
        if let Phase::Unfinished(job) = before {
            if let Some(canceler) = job.canceler {
                canceler.wake();
            }
            if let Some(watchers) = job.watchers {
                watchers.notify_waiters();
            }
        }
        Some(clock.expiry(finished))
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

    pub(super) fn snapshot(&self, id: JobId, clock: &Clock) -> Snapshot {
        self.at(&self.phase.lock(), id, clock)
    }

    /// The job as it is, if its revision is beyond `seen`; else the next change to wait for. Both under
    /// the lock, so that no change is missed between looking and waiting.
    pub(super) fn newer_than(
        &self,
        seen: u64,
        id: JobId,
        clock: &Clock,
    ) -> Result<Snapshot, OwnedNotified> {
        let mut phase = self.phase.lock();
        if let Phase::Unfinished(job) = &mut *phase
            && u64::from(job.revision) <= seen
        {
            let watchers = job.watchers.get_or_insert_default();
            return Err(watchers.clone().notified_owned());
        }
        Ok(self.at(&phase, id, clock))
    }

    fn at(&self, phase: &Phase, id: JobId, clock: &Clock) -> Snapshot {
        let created_at = at_unix_millis(self.created_at);
        let shown = |at: u64| created_at + Duration::from_millis(at.saturating_sub(self.created));
        let unfinished = Snapshot {
            id,
            owner: self.owner(),
            revision: 0,
            status: Status::Queued,
            created: clock.instant(self.created),
            created_at,
            started_at: None,
            finished_at: None,
            expires_at: None,
            kind: None,
            estimated_finish_at: None,
            progress: Progress::default(),
            response: None,
            error: None,
        };
        match phase {
            Phase::Unfinished(job) => Snapshot {
                revision: job.revision.into(),
                status: job.status(),
                started_at: job.started.map(shown),
                kind: Some(job.kind.clone()),
                estimated_finish_at: job.estimated_finish.map(at_unix_millis),
                progress: shown_progress(&job.progress),
                ..unfinished
            },
            Phase::Ended(job) => {
                let (response, error) = job.kept.glance();
                Snapshot {
                    revision: job.revision.into(),
                    status: job.status,
                    started_at: job.started.map(shown),
                    finished_at: Some(shown(job.finished)),
                    expires_at: Some(shown(clock.expiry(job.finished))),
                    progress: shown_progress(&job.progress),
                    response,
                    error,
                    ..unfinished
                }
            }
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

/// A job's end, ready to be put into it.
pub(super) struct Ending {
    event: Event,
    kept: Kept,
    charge: Option<Charge>,
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
                    kept: Kept::Response(packed),
                    charge: body.charge,
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
            charge: None,
            started: None,
            progress: None,
        }
    }
}

fn told(progress: Progress) -> Told {
    (progress != Progress::default()).then(|| Box::new(progress))
}

fn shown_progress(told: &Told) -> Progress {
    told.as_deref().cloned().unwrap_or_default()
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_unix_epoch(at: SystemTime) -> u64 {
    whole_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn at_unix_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
