//! Ends jobs, and frees jobs and keys when they have expired.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, yield_now},
    time::{Instant, sleep_until},
};

use super::{
    ended::EndedJob,
    table::JobTable,
    unfinished::{Ending, UnfinishedJob},
};
use crate::job::JobId;

/// The number of jobs, and of keys, that the reaper frees before it yields.
const BATCH_SIZE: usize = 64;

/// The minimum pause of the reaper. Look-ups ignore an expired job even before it is freed.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Ends a job, and makes sure that a reaper frees it when it has expired. Returns `None` if it had
/// ended before, or has another revision than the ending allows.
pub(super) fn end(table: &Arc<JobTable>, job: &UnfinishedJob, ending: Ending) -> Option<EndedJob> {
    let ended = table.end(job, ending)?;
    let expiry = ended.expiry(table.clock());
    let key_expiry = ended.key().and_then(|_| table.keys().next_expiry());
    start_reaper(table, key_expiry.map_or(expiry, |at| at.min(expiry)));
    Some(ended)
}

/// Puts back a job that left the order of ends while its result was read.
pub(super) fn put_back(table: &Arc<JobTable>, id: JobId) {
    // A job that was deleted stays away.
    let Some(expiry) = table.expiry(id) else {
        return;
    };
    table.order().lock().push_first(id, table.budget());
    start_reaper(table, expiry);
    table.budget().announce_room();
}

/// Starts a reaper, unless there is one that wakes by the time of `expiry`.
///
/// A reaper stops, or decides to sleep, only while it holds the lock of the order. So a job or a
/// key that was added before has a reaper in time.
fn start_reaper(table: &Arc<JobTable>, expiry: u64) {
    let mut order = table.order().lock();
    let reaper = order.reaper.as_ref();
    let is_late = order.reaped_at > expiry;
    if is_late || reaper.is_none_or(AbortHandle::is_finished) {
        if let Some(late) = order.reaper.take() {
            late.abort();
        }
        order.reaped_at = 0;
        // Without a runtime, or while one shuts down, memory is freed when room is needed.
        order.reaper = Handle::try_current()
            .ok()
            .map(|runtime| runtime.spawn(reap(Arc::downgrade(table))).abort_handle());
    }
}

/// Frees expired jobs and keys until none is left or the table is dropped.
async fn reap(table: Weak<JobTable>) {
    loop {
        // Not held during the pause: when the last owner of the table drops it, `Drop` ends this
        // task.
        let Some(next) = table.upgrade().and_then(|table| reap_batch(&table)) else {
            return;
        };
        let now = Instant::now();
        if next > now {
            sleep_until(next.max(now + MIN_PAUSE)).await;
        } else {
            yield_now().await;
        }
    }
}

/// Removes at most [`BATCH_SIZE`] expired jobs, and as many keys. Returns when the next of either
/// expires, or `None` if there is none and the reaper must stop.
fn reap_batch(table: &JobTable) -> Option<Instant> {
    let (clock, keys) = (table.clock(), table.keys());
    keys.reap(clock.now(), BATCH_SIZE);
    for _ in 0..BATCH_SIZE {
        let expired = {
            let mut order = table.order().lock();
            // A job that was deleted has no expiry.
            let next_job = order.first().map(|first| table.expiry(first).unwrap_or(0));
            if next_job.is_none_or(|expires| expires > clock.now()) {
                let next = next_job.into_iter().chain(keys.next_expiry()).min();
                match next {
                    Some(next) => order.reaped_at = next,
                    None => order.reaper = None,
                }
                return next.map(|expires| clock.instant(expires));
            }
            order.pop()
        };
        if let Some(expired) = expired {
            table.retire(expired);
        }
    }
    Some(Instant::now())
}
