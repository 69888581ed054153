//! The revisions of a job in memory.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project::pin_project;
use tokio::sync::futures::OwnedNotified;

use super::{
    clock::Clock,
    table::{FoundJob, JobTable},
    unfinished::Readiness,
};
use crate::job::{JobId, Snapshot};

/// The revisions of a job in memory: [`Store::changes`](crate::store::Store::changes).
///
/// A reader keeps no revision. It reads the job when it is polled, so a slow reader skips to the
/// current revision. One change wakes all readers of a job in one pass.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct MemoryChanges {
    job: Option<FoundJob>,
    id: JobId,
    clock: Clock,
    /// The last revision that was returned.
    seen: u64,
    #[pin]
    change: Option<OwnedNotified>,
}

impl MemoryChanges {
    pub(super) fn new(id: JobId, table: &JobTable) -> Self {
        Self {
            job: table.find(id),
            id,
            clock: *table.clock(),
            seen: 0,
            change: None,
        }
    }
}

impl Stream for MemoryChanges {
    type Item = Snapshot;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Snapshot>> {
        let mut this = self.project();
        let Some(job) = this.job else {
            return Poll::Ready(None);
        };
        loop {
            if let Some(change) = this.change.as_mut().as_pin_mut() {
                ready!(change.poll(cx));
                this.change.set(None);
            }
            let newer = match job {
                FoundJob::Unfinished(job) => job.newer_than(*this.seen, this.clock),
                FoundJob::Ended(job) => {
                    Readiness::Ready(job.snapshot(this.clock, this.clock.now()))
                }
            };
            match newer {
                Readiness::Ready(snapshot) => {
                    *this.seen = snapshot.revision;
                    if snapshot.status.is_ended() {
                        *this.job = None;
                    }
                    return Poll::Ready(Some(snapshot));
                }
                Readiness::Wait(change) => this.change.set(Some(change)),
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
