//! The values that the layer and a store exchange about a job.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::job::{ErrorCode, Owner, Progress, Snapshot};

/// The result of accepting a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Acceptance<C> {
    /// The job exists, and this process runs it.
    RunHere(C),
    /// The job exists, and any [`Worker`](crate::Worker) may run it.
    Queued,
    /// An earlier request with the same key and fingerprint has this job.
    Joined(Box<Snapshot>),
    /// An earlier request with the same key and fingerprint had a job that has expired or was
    /// evicted.
    Gone,
    /// An earlier request with the same key has another fingerprint.
    KeyReused,
    /// There is no room for the job.
    Full,
    /// The request's head is larger than the store can keep.
    TooLarge,
}

/// The result of a look-up.
#[derive(Debug)]
pub enum Lookup {
    /// The job. Boxed, because several functions pass a look-up on.
    Found(Box<Snapshot>),
    /// The job of this owner has expired.
    Gone(Option<Owner>),
    /// There is no such job, or it is no longer remembered.
    Unknown,
}

impl Lookup {
    /// Returns the job, if it was found.
    pub fn found(self) -> Option<Snapshot> {
        match self {
            Self::Found(job) => Some(*job),
            Self::Gone(_) | Self::Unknown => None,
        }
    }
}

/// The next revision of a job whose call runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The change.
    pub news: News,
    /// The expected end of the job, from this revision on.
    pub estimated_finish: Option<SystemTime>,
}

/// A change while a call runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum News {
    /// The inner service was called.
    Started(Instant),
    /// The inner service reported progress.
    Progress(Progress),
}

impl Report {
    /// Creates a report without an estimate.
    pub fn new(news: News) -> Self {
        Self {
            news,
            estimated_finish: None,
        }
    }
}

/// The end of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct End<W> {
    /// The start of the call; `None` if it never started.
    pub started: Option<Instant>,
    /// The last progress that the inner service reported.
    pub progress: Progress,
    /// The outcome of the call.
    pub outcome: Outcome<W>,
    /// The effect on the job's idempotency key.
    pub key: KeyOutcome,
}

impl<W> End<W> {
    /// Creates the end of a call that never started. A key is kept.
    pub fn new(outcome: Outcome<W>) -> Self {
        Self {
            started: None,
            progress: Progress::default(),
            outcome,
            key: KeyOutcome::Keep,
        }
    }
}

/// The outcome of a call.
#[derive(Debug)]
pub enum Outcome<W> {
    /// With a response, which has been written in full.
    Response(W),
    /// Without a response.
    NoResponse(ErrorCode),
}

/// The effect of a job's end on its idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyOutcome {
    /// A repeat of the request joins this job for as long as the key is remembered.
    #[default]
    Keep,
    /// The key is free: a repeat of the request becomes a job of its own.
    Release,
}

/// The result of ending a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The job has ended with this end.
    First,
    /// An earlier end holds: one by this claim, a cancel or a delete.
    Late,
    /// Another process has taken the job over.
    TakenOver,
    /// The job has not ended. Another process will run it.
    HandedBack,
}
