//! Where jobs live: the interface between the layer and what keeps its jobs.
//!
//! A store is the one place where a job's end is decided. The layer runs calls and writes HTTP; the
//! store makes accepting atomic, lets the first end of a job win, keeps its result for as long as it
//! should, and answers for it. [`MemoryStore`] does so on this machine.

mod memory;
#[cfg(feature = "nats")]
pub mod nats;
mod queue;

use std::{
    error,
    future::Future,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, Response, request::Parts};
use tokio::time::Instant;

pub use self::{
    memory::{MemoryChanges, MemoryClaim, MemoryStore},
    queue::{Queue, Work},
};
pub use crate::{
    config::{Fingerprint, Key},
    estimate::{Experience, Kind, Lessons},
    job::{Cursor, Filter, Owner, Page, ParseCursorError},
    limit::{Budget, Charge, Collected},
};
use crate::{
    job::{ErrorCode, JobId, Progress, Snapshot, Status},
    middleware::Replay,
};

/// Keeps jobs.
///
/// Every method that returns a future may be dropped before its end; what it does is then done whole
/// or not at all. Some are `Unpin` and borrow nothing: the layer polls them where it stands, and makes room for
/// one only where it is not ready at once, perhaps on another task. A store that takes its time boxes an `async`
/// block.
pub trait Store: Clone + Send + Sync + 'static {
    /// What can go wrong with the store itself; the client is told 503, never 404.
    type Error: error::Error + Send + Sync + 'static;

    /// What the store keeps of a request from before its call: everything, where another process may
    /// run it; nothing, where only this one can.
    type Record: Send + Sync + 'static;

    /// A job's changes, from the present state on. Only the newest state is kept for a reader that is
    /// slow; it ends with the job.
    type Changes: Stream<Item = Snapshot> + Send;

    /// The right to end one job. Dropping it ends the job, as [`ErrorCode::Shutdown`] or by whatever
    /// the store does for a process that is gone.
    type Claim: Send + Sync + 'static;

    /// Records a request whose body has been read.
    fn record(&self, head: &Parts, body: &Bytes, trailers: Option<&HeaderMap>) -> Self::Record;

    /// Takes bytes out of this process's budget, if they are free or finished jobs can go for them.
    fn reserve(&self, bytes: usize) -> Option<Charge>;

    /// Makes a job, in one step with its key and the limits on jobs. Who is told that it is accepted can rely on
    /// it: [`get`](Self::get) finds it from then on.
    fn accept(
        &self,
        job: &NewJob,
        record: Self::Record,
    ) -> impl Future<Output = Result<Acceptance<Self::Claim>, Self::Error>> + Send + Unpin + 'static;

    /// Looks a job up.
    ///
    /// It may be polled first outside of a runtime, by who is not to be woken.
    fn get(
        &self,
        id: JobId,
    ) -> impl Future<Output = Result<Lookup, Self::Error>> + Send + Unpin + 'static;

    /// Follows a job that was found; empty where it is not there any more.
    fn changes(&self, id: JobId) -> Self::Changes;

    /// The jobs there are, the newest first.
    fn list(&self, filter: &Filter) -> impl Future<Output = Result<Page, Self::Error>> + Send;

    /// The response a job ended with; `None` where there is none (any more).
    fn result(
        &self,
        id: JobId,
    ) -> impl Future<Output = Result<Option<Response<Replay>>, Self::Error>> + Send;

    /// Writes down what has changed while the call runs. Without effect on an ended job.
    fn report(
        &self,
        claim: &Self::Claim,
        report: Report,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + Unpin + 'static;

    /// Ends a job.
    fn finish(
        &self,
        claim: &Self::Claim,
        end: End,
    ) -> impl Future<Output = Result<Finished, Self::Error>> + Send + Unpin + 'static;

    /// Ready when somebody else has ended the job, by [`cancel`](Self::cancel) or
    /// [`forget`](Self::forget). Of those who asked the last is to be woken.
    fn poll_canceled(&self, claim: &Self::Claim, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends a job as canceled, if it has not ended, and returns it as it is then.
    fn cancel(&self, id: JobId) -> impl Future<Output = Result<Lookup, Self::Error>> + Send;

    /// Cancels a job if it has not ended, and forgets it: it is unknown from then on. Returns it as
    /// it was.
    fn forget(&self, id: JobId) -> impl Future<Output = Result<Lookup, Self::Error>> + Send;

    /// Is handed what a registry sees of how long jobs take, when it is built in this store.
    ///
    /// A store that processes share lets them learn from one another by it; any other has nothing to do.
    fn share(&self, experience: Experience) {
        drop(experience);
    }
}

/// A job to be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// When the request was taken, by the monotonic clock.
    pub created: Instant,
    /// When the request was taken, by the clock on the wall.
    pub created_at: SystemTime,
    /// When the call began, where it runs already.
    pub started: Option<Instant>,
    /// What a call that runs already has told.
    pub progress: Progress,
    /// Whom it belongs to.
    pub owner: Option<Owner>,
    /// Its idempotency key, and what that was used for.
    pub key: Option<(Key, Fingerprint)>,
    /// What kind of request it is.
    pub kind: Kind,
    /// When it may be done, as far as that can be told.
    pub estimated_finish: Option<SystemTime>,
    /// Whether there is no place for it, so that it can only join a job that is there.
    pub join_only: bool,
    /// Whether this process is to run it even where others could: its call runs already, or its answer
    /// is waited for.
    pub run_here: bool,
}

impl NewJob {
    /// A job of a request that was taken now; nobody's, without a key, and not begun.
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            created: Instant::now(),
            created_at: SystemTime::now(),
            started: None,
            progress: Progress::default(),
            owner: None,
            key: None,
            kind: Kind::new(""),
            estimated_finish: None,
            join_only: false,
            run_here: false,
        }
    }

    /// The job at its first revision.
    pub fn snapshot(&self) -> Snapshot {
        let started_at = self
            .started
            .map(|started| self.created_at + started.saturating_duration_since(self.created));
        Snapshot {
            id: self.id,
            owner: self.owner,
            revision: 1,
            status: match started_at {
                None => Status::Queued,
                Some(_) => Status::Running,
            },
            created: self.created,
            created_at: self.created_at,
            started_at,
            finished_at: None,
            expires_at: None,
            kind: Some(self.kind.clone()),
            estimated_finish_at: self.estimated_finish,
            progress: self.progress.clone(),
            response: None,
            error: None,
        }
    }
}

/// What came of accepting a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Acceptance<C> {
    /// It is there, and this process is to run it.
    RunHere(C),
    /// It is there, and whichever [`Worker`](crate::Worker) takes it runs it.
    Queued,
    /// The key is that of an earlier request like this one; this is its job.
    Joined(Box<Snapshot>),
    /// The key is that of an earlier request unlike this one.
    KeyReused,
    /// There is no room for it.
    Full,
    /// Its head is more than the store can keep.
    TooLarge,
}

/// What came of ending a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It has ended so.
    First,
    /// Another end came first, and holds: this claim's, or it was canceled or deleted.
    Late,
    /// It is another process's by now, or has the end that that one gave it.
    TakenOver,
    /// It has not ended: another process is to run it.
    HandedBack,
}

/// What is known of an id.
#[derive(Debug)]
pub enum Lookup {
    /// The job; boxed, since a look-up is handed on from one to the other.
    Found(Box<Snapshot>),
    /// There was such a job, of this owner; it has expired.
    Gone(Option<Owner>),
    /// No such job, as far as is remembered.
    Unknown,
}

/// A job's next revision, while its call runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What is new of it.
    pub news: News,
    /// When the job may be done, as it is told from this revision on.
    pub estimated_finish: Option<SystemTime>,
}

/// What changes while a call runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// The inner service was called.
    Started(Instant),
    /// The inner service told something new.
    Progress(Progress),
}

/// The end of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct End {
    /// When the inner service was called; `None` if it never was.
    pub started: Option<Instant>,
    /// The last that it told.
    pub progress: Progress,
    /// How it ended.
    pub outcome: Outcome,
}

impl End {
    /// An end of a call that never began, and told nothing.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            started: None,
            progress: Progress::default(),
            outcome,
        }
    }
}

impl Report {
    /// A revision of which nobody can tell when the job may be done.
    pub fn new(news: News) -> Self {
        Self {
            news,
            estimated_finish: None,
        }
    }
}

/// How a job ends.
#[derive(Debug)]
pub enum Outcome {
    /// With a response, its head as it will be replayed. Its charge covers head and body.
    Response(Response<Collected>),
    /// Without one.
    Broke(ErrorCode),
}
