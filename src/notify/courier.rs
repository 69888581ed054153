//! The task that sends what is due in an outbox.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    task::{JoinSet, yield_now},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::send::{Sender, deliver};
use crate::{
    store::{DueDeliveries, SharedOutbox},
    telemetry,
};

/// The delay before another look at an outbox that has failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The maximum time between two looks at the outbox. A store gives up what it holds for a process
/// that has not looked for half a minute.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// The time limit for releasing the deliveries that were cut off.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The time between two counts of what is pending, for metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Sends what is due until a drain has begun and nothing is left to send.
///
/// A drain sends what is due in an outbox that does not survive the process. Canceling `stopped`
/// drops the requests in flight, and releases their deliveries.
pub(super) async fn run<E: Error + Send + Sync + 'static>(
    sender: Arc<Sender>,
    outbox: SharedOutbox<E>,
    draining: CancellationToken,
    stopped: CancellationToken,
    tasks: TaskTracker,
) {
    let mut sending = JoinSet::new();
    let mut count_at = Instant::now();
    loop {
        let is_draining = draining.is_cancelled();
        let (room, free_at) = sender.receivers.room();
        let is_full = room.is_full();
        let due = if is_full {
            Ok(DueDeliveries::default().with_waiting(true))
        } else if is_draining && outbox.is_durable() {
            Ok(DueDeliveries::default())
        } else {
            let taken = stopped.run_until_cancelled(outbox.take(room)).await;
            taken.unwrap_or_else(|| Ok(DueDeliveries::default()))
        };
        let now = Instant::now();
        let mut next = now + MAX_PAUSE;
        match due {
            Ok(due) => {
                let is_done = due.deliveries.is_empty() && sending.is_empty();
                if is_draining && is_done && (outbox.is_durable() || !due.has_waiting) {
                    return;
                }
                let in_time = due.next_at.map(|at| now + until(at));
                next = in_time.map_or(next, |at| at.min(next));
                for delivery in due.deliveries {
                    // Counted here, or the next look at the room would find the connection free.
                    let permission = sender.receivers.begin(delivery.receiver());
                    let (sender, outbox) = (sender.clone(), outbox.clone());
                    let stopped = stopped.clone();
                    let sent = async move {
                        deliver(&sender, &outbox, delivery, permission, &stopped).await;
                    };
                    sending.spawn(tasks.track_future(sent));
                }
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(error, "failed to take webhooks from the store");
                // Only a durable outbox fails, and it keeps its deliveries.
                if is_draining && sending.is_empty() {
                    return;
                }
                next = now + RETRY_DELAY;
            }
        }
        if cfg!(feature = "metrics") {
            if now >= count_at {
                count_at = now + COUNT_INTERVAL;
                stopped.run_until_cancelled(count(&outbox)).await;
            }
            next = next.min(count_at);
        }
        let next = free_at.map_or(next, |free_at| free_at.min(next));
        select! {
            () = outbox.added() => {}
            () = sender.receivers.freed() => {}
            Some(_) = sending.join_next() => {}
            () = sleep_until(next) => {}
            () = draining.cancelled(), if !is_draining => {}
            () = stopped.cancelled() => break,
        }
        // Attempts that end together are then looked at together.
        yield_now().await;
        while sending.try_join_next().is_some() {}
    }
    let released = async { while sending.join_next().await.is_some() {} };
    // A slower one is dropped, and its lease ends.
    let _ = timeout(RELEASE_TIMEOUT, released).await;
}

/// Records the number of pending deliveries, and the age of the oldest.
async fn count<E: Error + Send + Sync + 'static>(outbox: &SharedOutbox<E>) {
    if let Ok(stats) = outbox.stats().await {
        let age = stats.oldest.and_then(|oldest| oldest.elapsed().ok());
        telemetry::webhooks_pending(stats.pending, age.unwrap_or_default());
    }
}

/// Returns the time until `at`, at least a millisecond.
fn until(at: SystemTime) -> Duration {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    left.max(Duration::from_millis(1))
}
