//! The stream of a job's snapshots.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::time::{sleep, timeout};

use super::{process::ProcessState, subscribers::Subscription};
use crate::{JobId, Snapshot, store::Lookup};

/// The delay before the next look-up after a failed one.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The maximum time between two look-ups: a lost notification delays a change by this much.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The stream that [`Store::changes`](crate::store::Store::changes) returns for a job in JetStream.
///
/// The process watches the bucket once for all streams. Each notification makes this stream read
/// the job anew, so a slow reader skips to the newest state.
#[must_use = "streams do nothing unless polled"]
pub struct NatsChanges {
    id: JobId,
    changes: Pin<Box<dyn Stream<Item = Snapshot> + Send>>,
}

impl NatsChanges {
    pub(super) fn new(process: &Arc<ProcessState>, id: JobId) -> Self {
        let follower = JobFollower {
            changes: process.subscribers.subscribe(id),
            process: process.clone(),
            id,
            last_revision: 0,
            is_ended: false,
        };
        let changes = stream::unfold(follower, async |mut follower| {
            let snapshot = follower.next().await?;
            Some((snapshot, follower))
        });
        Self {
            id,
            changes: Box::pin(changes),
        }
    }
}

impl Stream for NatsChanges {
    type Item = Snapshot;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Snapshot>> {
        self.changes.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for NatsChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsChanges").field(&self.id).finish()
    }
}

struct JobFollower {
    process: Arc<ProcessState>,
    id: JobId,
    changes: Subscription,
    last_revision: u64,
    is_ended: bool,
}

impl JobFollower {
    async fn next(&mut self) -> Option<Snapshot> {
        loop {
            if self.is_ended {
                return None;
            }
            // Before the look-up, so that a change during it causes another one.
            self.changes.mark_unchanged();
            match self.process.jetstream.lookup(self.id).await {
                Ok(Lookup::Found(snapshot)) if snapshot.revision > self.last_revision => {
                    self.last_revision = snapshot.revision;
                    self.is_ended = snapshot.status.is_ended();
                    return Some(*snapshot);
                }
                Ok(Lookup::Found(_)) => {
                    let _ = timeout(POLL_INTERVAL, self.changes.changed()).await;
                }
                Ok(Lookup::Gone(_) | Lookup::Unknown) => return None,
                Err(error) => {
                    tracing::warn!(%error, id = %self.id, "failed to look up a followed job");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
