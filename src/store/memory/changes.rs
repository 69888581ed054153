//! The revisions of a job in memory.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project::pin_project;
use tokio::sync::futures::OwnedNotified;

use super::{
    table::{FoundJob, JobTable},
    unfinished::{Readiness, UnfinishedJob},
};
use crate::job::{JobId, Snapshot};

/// The revisions of a job in memory: [`Store::changes`](crate::store::Store::changes).
///
/// A reader keeps no revision. It reads the job when it is polled, so a slow reader skips to the
/// current revision. One change wakes all readers of a job in one pass.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct MemoryChanges {
    job: WatchedJob,
    id: JobId,
    table: Arc<JobTable>,
    /// The last revision that was returned.
    seen: u64,
    #[pin]
    change: Option<OwnedNotified>,
}

/// A job that is watched. It never keeps the job's result.
enum WatchedJob {
    Unfinished(Arc<UnfinishedJob>),
    /// It had ended before it was watched.
    Ended(Box<Snapshot>),
    /// There is no such job, or its last revision has been returned.
    Done,
}

impl MemoryChanges {
    pub(super) fn new(id: JobId, table: &Arc<JobTable>) -> Self {
        let job = match table.find(id) {
            None => WatchedJob::Done,
            Some(FoundJob::Unfinished(job)) => {
                job.watch();
                WatchedJob::Unfinished(job)
            }
            Some(FoundJob::Ended(job)) => {
                let clock = table.clock();
                WatchedJob::Ended(Box::new(job.snapshot(clock, clock.now())))
            }
        };
        Self {
            job,
            id,
            table: table.clone(),
            seen: 0,
            change: None,
        }
    }
}

impl WatchedJob {
    fn into_ended(self) -> Option<Snapshot> {
        match self {
            Self::Ended(job) => Some(*job),
            Self::Unfinished(_) | Self::Done => None,
        }
    }
}

impl Stream for MemoryChanges {
    type Item = Snapshot;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Snapshot>> {
        let mut this = self.project();
        loop {
            if let Some(change) = this.change.as_mut().as_pin_mut() {
                ready!(change.poll(cx));
                this.change.set(None);
            }
            let newer = match this.job {
                WatchedJob::Unfinished(job) => job.newer_than(*this.seen, this.table.clock().now()),
                WatchedJob::Ended(_) | WatchedJob::Done => {
                    let job = mem::replace(this.job, WatchedJob::Done);
                    return Poll::Ready(job.into_ended());
                }
            };
            match newer {
                Readiness::Ready(snapshot) => {
                    *this.seen = snapshot.revision;
                    if snapshot.status.is_ended() {
                        *this.job = WatchedJob::Done;
                    }
                    return Poll::Ready(Some(snapshot));
                }
                Readiness::Wait(change) => this.change.set(Some(change)),
                // It ended before this was a reader.
                Readiness::Ended => {
                    *this.job = WatchedJob::Done;
                    return Poll::Ready(this.table.ended_snapshot(*this.id));
                }
            }
        }
    }
}

impl fmt::Debug for MemoryChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryChanges")
            .field("id", &self.id)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
