use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project::pin_project;
use tokio::sync::futures::OwnedNotified;

use super::{Found, Shared, clock::Clock};
use crate::job::{JobId, Snapshot};

/// A job's changes: [`Store::changes`](crate::store::Store::changes) in memory.
///
/// A reader holds nothing but its place: what it is given is read from the job when it asks, so a slow
/// one skips to the newest state. All readers of a job are woken by one change in one pass.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct MemoryChanges {
    job: Option<Found>,
    id: JobId,
    clock: Clock,
    seen: u64,
    #[pin]
    change: Option<OwnedNotified>,
}

impl MemoryChanges {
    pub(super) fn new(id: JobId, shared: &Shared) -> Self {
        Self {
            job: shared.find(id),
            id,
            clock: shared.clock,
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
                Found::Unfinished(job) => job.newer_than(*this.seen, this.clock),
                Found::Ended(job) => Ok(job.snapshot(this.clock)),
            };
            match newer {
                Ok(snapshot) => {
                    *this.seen = snapshot.revision;
                    if snapshot.status.is_ended() {
                        *this.job = None;
                    }
                    return Poll::Ready(Some(snapshot));
                }
                Err(change) => this.change.set(Some(change)),
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
