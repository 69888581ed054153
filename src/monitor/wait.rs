use std::{future::poll_fn, pin::pin, time::Duration};

use futures_core::Stream;
use tokio::time::timeout;

use crate::{job::Snapshot, jobs::Registry, store::Store, telemetry::Counted};

/// Waits until a job is as wanted, at most so long (RFC 7240 §4.3), and returns it as it is then.
///
/// Nothing is polled: the store wakes whoever waits, all in one pass. Dropped, it leaves nothing behind.
pub(crate) async fn wait<St: Store>(
    registry: &Registry<St>,
    mut job: Snapshot,
    limit: Duration,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    if wanted(&job) || limit.is_zero() {
        return job;
    }
    let _counted = Counted::waiter();
    let mut changes = pin!(registry.store.changes(job.id));
    let changed = async {
        while let Some(changed) = poll_fn(|cx| changes.as_mut().poll_next(cx)).await {
            job = changed;
            if wanted(&job) {
                break;
            }
        }
    };
    // At the limit the job is shown as it is, which is what the client asked for.
    let _ = timeout(limit, changed).await;
    job.teach(&registry.estimates);
    job
}
