use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::jetstream::JetStream;
use crate::{
    job::{JobId, Snapshot},
    store::Lookup,
};

/// How long a store that fails is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// After how long without news a job is looked at again: whatever is lost on the way is late, and no
/// more.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// A job's changes: [`Store::changes`](crate::store::Store::changes) in JetStream.
///
/// The job is read anew each time that the process's one watch of the bucket tells of a change, so a
/// slow reader skips to the newest state.
#[must_use = "streams do nothing unless polled"]
pub struct NatsChanges {
    id: JobId,
    changes: Pin<Box<dyn Stream<Item = Snapshot> + Send>>,
}

impl NatsChanges {
    pub(super) fn new(shared: &Arc<JetStream>, id: JobId) -> Self {
        let following = JobFollower {
            changed: Some(shared.interest.follow(id)),
            shared: shared.clone(),
            id,
            seen: 0,
            ended: false,
        };
        let changes = stream::unfold(following, async |mut following| {
            let snapshot = following.next().await?;
            Some((snapshot, following))
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
    shared: Arc<JetStream>,
    id: JobId,
    /// `Some` until it is dropped.
    changed: Option<watch::Receiver<()>>,
    seen: u64,
    ended: bool,
}

impl JobFollower {
    async fn next(&mut self) -> Option<Snapshot> {
        let changed = self.changed.as_mut()?;
        loop {
            if self.ended {
                return None;
            }
            // Before it is read: what changes from here on is told.
            changed.mark_unchanged();
            match self.shared.lookup(self.id).await {
                Ok(Lookup::Found(snapshot)) if snapshot.revision > self.seen => {
                    self.seen = snapshot.revision;
                    self.ended = snapshot.status.is_ended();
                    return Some(*snapshot);
                }
                Ok(Lookup::Found(_)) => {
                    let _ = timeout(LOOK_AGAIN, changed.changed()).await;
                }
                Ok(Lookup::Gone(_) | Lookup::Unknown) => return None,
                Err(error) => {
                    tracing::warn!(%error, id = %self.id, "a job cannot be followed");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for JobFollower {
    fn drop(&mut self) {
        if let Some(changed) = self.changed.take() {
            self.shared.interest.leave(self.id, changed);
        }
    }
}
