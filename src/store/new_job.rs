//! A job that is about to be created.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    config::Outcomes,
    estimate::Kind,
    job::{CallbackTarget, Fingerprint, JobId, Key, Owner, Progress, Snapshot},
};

/// The minimum of the time that a key is remembered by default.
const MIN_KEY_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A job that is about to be created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewJob {
    /// The job's id.
    pub id: JobId,
    /// The time of the request, by the monotonic clock.
    pub created: Instant,
    /// The time of the request, by the system clock.
    pub created_at: SystemTime,
    /// The start of the call, if it runs already.
    pub started: Option<Instant>,
    /// The progress of a call that runs already.
    pub progress: Progress,
    /// The principal that the job belongs to.
    pub owner: Option<Owner>,
    /// The request's idempotency key.
    pub key: Option<NewKey>,
    /// The kind of the request.
    pub kind: Kind,
    /// The title, for people.
    pub title: Option<Arc<str>>,
    /// The addresses that are notified of the job.
    pub callbacks: Option<Arc<[CallbackTarget]>>,
    /// The expected end of the job.
    pub estimated_finish: Option<SystemTime>,
    /// Set if the request may only join an existing job, because there is no permit for a new one.
    /// Without a job to join, the result is [`Full`](super::Acceptance::Full).
    pub join_only: bool,
    /// Set if this process must run the job, even if others could: its call runs already, or a
    /// client waits for its response.
    pub run_here: bool,
    /// The bytes of the request that this process keeps until its call has ended: head, body and
    /// trailers. A claim holds a charge of them.
    pub request_bytes: usize,
}

/// The idempotency key of a job that is about to be created.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NewKey {
    /// The key.
    pub key: Key,
    /// The fingerprint of the request.
    pub fingerprint: Fingerprint,
    /// The time that the key is remembered, from the end of its job. `None` leaves it to the store.
    pub keep_for: Option<Duration>,
    /// The outcomes that the key keeps.
    pub outcomes: Outcomes,
}

impl NewKey {
    /// Creates a key that keeps all outcomes, for the time that the store chooses.
    pub fn new(key: Key, fingerprint: Fingerprint) -> Self {
        Self {
            key,
            fingerprint,
            keep_for: None,
            outcomes: Outcomes::All,
        }
    }
}

/// Returns how long a key is remembered from the end of its job by default, if the job is kept for
/// `retain`: as long as that, and at least 24 hours.
pub fn default_key_retention(retain: Duration) -> Duration {
    retain.max(MIN_KEY_RETENTION)
}

impl NewJob {
    /// Creates a job that is requested now and not started, without an owner or a key.
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
            title: None,
            callbacks: None,
            estimated_finish: None,
            join_only: false,
            run_here: false,
            request_bytes: 0,
        }
    }

    /// Returns the first revision of the job.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(Instant::now())
    }

    /// Returns the first revision of the job, as it is read at `now`.
    pub(crate) fn snapshot_at(&self, now: Instant) -> Snapshot {
        let age = now.saturating_duration_since(self.created);
        let mut job = Snapshot::with_age(self.id, self.created_at, age);
        job.owner = self.owner;
        job.title = self.title.clone();
        job.callbacks = self.callbacks.clone();
        job.kind = Some(self.kind.clone());
        if let Some(started) = self.started {
            job.start(self.created_at + started.saturating_duration_since(self.created));
        }
        job.revision = 1;
        job.set_progress(self.progress.clone());
        job.estimated_finish_at = self.estimated_finish;
        job
    }
}
