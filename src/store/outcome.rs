//! What a store is told of a job, and what it answers.

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
    /// The job. Boxed, because a look-up is passed through several functions.
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
    /// What has changed.
    pub news: News,
    /// When the job is expected to end, from this revision on.
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
    /// When the inner service was called; `None` if it never was.
    pub started: Option<Instant>,
    /// What the inner service reported last.
    pub progress: Progress,
    /// How the call ended.
    pub outcome: Outcome<W>,
    /// Whether a repeat of the request joins this job.
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

/// How a call ended.
#[derive(Debug)]
pub enum Outcome<W> {
    /// With a response, which has been written in full.
    Response(W),
    /// Without a response.
    NoResponse(ErrorCode),
}

/// What becomes of a job's idempotency key at its end.
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
