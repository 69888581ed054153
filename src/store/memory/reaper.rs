use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, yield_now},
    time::{Instant, sleep_until},
};

use super::{Shared, order::Order};
use crate::job::JobId;

/// How many jobs the reaper takes before it lets others run.
const AT_ONCE: usize = 64;

/// How long the reaper rests at least: what has expired is not shown, reaped or not.
const REST: Duration = Duration::from_secs(1);

/// The ended jobs in their order, and the task that frees them when they have expired.
#[derive(Default)]
pub(super) struct EndedJobs {
    pub(super) order: Order,
    reaper: Option<AbortHandle>,
}

impl EndedJobs {
    /// Puts a job last, and sees to it that a reaper is there. A reaper leaves only while it holds the
    /// lock around this, having seen the order empty.
    pub(super) fn push(&mut self, id: JobId, store: &Arc<Shared>) {
        self.order.push(id);
        if self.reaper.as_ref().is_none_or(AbortHandle::is_finished) {
            // Without a runtime, as in one that is shutting down, memory is freed when room is
            // needed.
            self.reaper = Handle::try_current()
                .ok()
                .map(|runtime| runtime.spawn(reap(Arc::downgrade(store))).abort_handle());
        }
    }
}

impl Drop for EndedJobs {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
    }
}

/// Frees the memory of expired jobs until there is none left or the store is gone.
async fn reap(store: Weak<Shared>) {
    loop {
        // Not held while resting: when the store's last owner goes, its `Drop` ends this task.
        let Some(next) = store.upgrade().and_then(|store| reap_some(&store)) else {
            return;
        };
        let now = Instant::now();
        if next > now {
            sleep_until(next.max(now + REST)).await;
        } else {
            yield_now().await;
        }
    }
}

/// Removes up to [`AT_ONCE`] expired jobs. Returns when the next one expires, or `None` where there
/// is none and the reaper is to leave.
fn reap_some(store: &Shared) -> Option<Instant> {
    for _ in 0..AT_ONCE {
        let expired = {
            let mut ended = store.order.lock();
            let Some(first) = ended.order.first() else {
                ended.reaper = None;
                return None;
            };
            // One that was deleted has left no more than its place.
            match store.expiry(first) {
                Some(expires) if expires > store.clock.now() => {
                    return Some(store.clock.instant(expires));
                }
                _ => {}
            }
            ended.order.pop()
        };
        if let Some(expired) = expired {
            store.retire(expired);
        }
    }
    Some(Instant::now())
}
