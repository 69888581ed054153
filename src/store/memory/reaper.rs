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
    start_reaper(table);
    Some(ended)
}

/// Puts back a job that left the order of ends while its result was read.
pub(super) fn put_back(table: &Arc<JobTable>, id: JobId) {
    // A job that was deleted stays away.
    if table.expiry(id).is_none() {
        return;
    }
    {
        let mut order = table.order().lock();
        order.push_first(id, table.budget());
        // It expires before the job that the reaper sleeps for.
        if let Some(reaper) = order.reaper.take() {
            reaper.abort();
        }
    }
    start_reaper(table);
    table.budget().announce_room();
}

/// Starts a reaper unless there is one.
///
/// A reaper stops only while it holds the lock of the order, and only if the order is empty and no
/// key is due to expire. So a job or a key that was pushed before has a reaper.
fn start_reaper(table: &Arc<JobTable>) {
    let mut order = table.order().lock();
    if order.reaper.as_ref().is_none_or(AbortHandle::is_finished) {
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
                if next.is_none() {
                    order.reaper = None;
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
