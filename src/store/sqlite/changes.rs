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
use tokio::{sync::watch, time::sleep};

use super::{
    cache::{CachedJob, CachedState, aged},
    lookup::look_up,
    process::Process,
};
use crate::{JobId, Snapshot};

/// The delay before the next look-up after a failed one.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The stream that [`Store::changes`](crate::store::Store::changes) returns for a job in the file.
///
/// The writer's thread publishes each revision once for all streams. A slow reader skips to the
/// newest one.
#[must_use = "streams do nothing unless polled"]
pub struct SqliteChanges {
    id: JobId,
    changes: Pin<Box<dyn Stream<Item = Snapshot> + Send>>,
}

impl SqliteChanges {
    pub(super) fn new(process: &Arc<Process>, id: JobId) -> Self {
        let follower = CacheFollower {
            followed: FollowedJob::new(process, id),
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

impl Stream for SqliteChanges {
    type Item = Snapshot;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Snapshot>> {
        self.changes.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for SqliteChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteChanges").field(&self.id).finish()
    }
}

/// A job that stays in memory while this exists, so that its changes are announced.
pub(super) struct FollowedJob {
    process: Arc<Process>,
    pub(super) job: Arc<CachedJob>,
    /// `None` only while `drop` runs.
    changes: Option<watch::Receiver<CachedState>>,
}

impl FollowedJob {
    pub(super) fn new(process: &Arc<Process>, id: JobId) -> Self {
        let (job, changes) = process.shared.cache.follow(id);
        Self {
            process: process.clone(),
            job,
            changes: Some(changes),
        }
    }
}

impl Drop for FollowedJob {
    fn drop(&mut self) {
        self.changes = None;
        self.process.shared.cache.leave(&self.job);
    }
}

struct CacheFollower {
    followed: FollowedJob,
    last_revision: u64,
    is_ended: bool,
}

impl CacheFollower {
    async fn next(&mut self) -> Option<Snapshot> {
        let FollowedJob {
            process,
            job: followed,
            changes,
        } = &mut self.followed;
        let changes = changes.as_mut()?;
        loop {
            if self.is_ended {
                return None;
            }
            let state = changes.borrow_and_update().clone();
            match state {
                CachedState::Gone => return None,
                CachedState::Known(job) if job.revision > self.last_revision => {
                    self.last_revision = job.revision;
                    self.is_ended = job.status.is_ended();
                    return Some(aged(&job));
                }
                // The sender lives as long as the job.
                CachedState::Known(_) => changes.changed().await.ok()?,
                CachedState::Unread => {
                    let id = followed.id;
                    let reading = process
                        .readers
                        .read(move |connection| look_up(connection, id));
                    match reading.await {
                        Ok(found) => followed.load(found.found()),
                        Err(error) => {
                            tracing::warn!(%error, %id, "failed to look up a followed job");
                            sleep(RETRY_DELAY).await;
                        }
                    }
                }
            }
        }
    }
}
