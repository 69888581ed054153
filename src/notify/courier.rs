//! The task that sends what is due in an outbox.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::send::{Sender, deliver};
use crate::{
    store::{DueDeliveries, SharedOutbox},
    telemetry,
};

/// The time before the outbox is asked again after it has failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The maximum time between two looks at the outbox.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The time between two counts of what is pending, for metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Sends what is due until a drain has begun and nothing is left to send.
///
/// A drain sends what is due in an outbox that does not survive the process. Dropping the future
/// drops the requests that are on their way; their leases end.
pub(super) async fn run<E: Error + Send + Sync + 'static>(
    sender: Arc<Sender>,
    outbox: SharedOutbox<E>,
    draining: CancellationToken,
) {
    let mut sending = JoinSet::new();
    let mut count_at = Instant::now();
    loop {
        let is_draining = draining.is_cancelled();
        let (room, free_at) = sender.receivers.room();
        let takes = !(is_draining && outbox.is_durable()) && !room.is_full();
        let due = if takes {
            let taken = outbox.take(room).await;
            taken.map_err(|error| {
                let error = &error as &dyn Error;
                tracing::warn!(error, "failed to take webhooks from the store");
            })
        } else {
            Ok(DueDeliveries::default())
        };
        let now = Instant::now();
        let mut next = now + MAX_PAUSE;
        match due {
            Ok(due) => {
                if is_draining && due.deliveries.is_empty() && sending.is_empty() {
                    return;
                }
                let in_time = due.next_at.map(|at| now + until(at));
                next = in_time.map_or(next, |at| at.min(next));
                for delivery in due.deliveries {
                    let (sender, outbox) = (sender.clone(), outbox.clone());
                    sending.spawn(async move { deliver(&sender, &outbox, delivery).await });
                }
            }
            // What is due in memory can be taken at any time.
            Err(()) if is_draining && sending.is_empty() => return,
            Err(()) => next = now + RETRY_DELAY,
        }
        if now >= count_at {
            count_at = now + COUNT_INTERVAL;
            count(&outbox).await;
        }
        let next = free_at.into_iter().fold(next.min(count_at), Instant::min);
        select! {
            () = outbox.added() => {}
            Some(_) = sending.join_next() => while sending.try_join_next().is_some() {},
            () = sleep_until(next) => {}
            () = draining.cancelled(), if !is_draining => {}
        }
    }
}

/// Records the number of pending deliveries, and the age of the oldest.
async fn count<E: Error + Send + Sync + 'static>(outbox: &SharedOutbox<E>) {
    if let (true, Ok(stats)) = (cfg!(feature = "metrics"), outbox.stats().await) {
        let age = stats.oldest.and_then(|oldest| oldest.elapsed().ok());
        telemetry::webhooks_pending(stats.pending, age.unwrap_or_default());
    }
}

/// Returns the time until `at`, at least a millisecond.
fn until(at: SystemTime) -> Duration {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    left.max(Duration::from_millis(1))
}
