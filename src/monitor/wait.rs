//! Waits for a change of a job.

use std::{future::poll_fn, pin::pin, time::Duration};

use futures_core::Stream;
use tokio::time::{Instant, timeout};

use crate::{job::Snapshot, registry::Registry, store::Store, telemetry::GaugeGuard};

/// Waits until `is_done` returns `true` for a job, at most for `limit` (RFC 7240 §4.3), and returns
/// the job as it is then.
///
/// It does not poll: the store wakes all that wait for a job in one pass.
pub(super) async fn wait<St: Store>(
    registry: &Registry<St>,
    mut job: Snapshot,
    limit: Duration,
    is_done: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    if is_done(&job) || limit.is_zero() {
        return job;
    }
    let _gauge = GaugeGuard::waiter();
    let mut read_at = Instant::now();
    let mut changes = pin!(registry.store.changes(job.id));
    let changed = async {
        while let Some(changed) = poll_fn(|cx| changes.as_mut().poll_next(cx)).await {
            (job, read_at) = (changed, Instant::now());
            if is_done(&job) {
                break;
            }
        }
    };
    // After the limit, the job is returned as it is.
    let _ = timeout(limit, changed).await;
    job.age += read_at.elapsed();
    job.teach(&registry.estimates);
    job
}
