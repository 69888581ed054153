//! The state that all handles of one registry share, and its drain.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ConfigError, Settings},
    estimate::Estimates,
    limit::{Paces, Permits, Purpose},
    stop::StopSignal,
    store::Store,
    telemetry,
};

#[cfg(feature = "webhook")]
use crate::notify::Notifier;

/// The time limit for calls that a drain has stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit of a drain whose own limit is too large for the clock: 30 years.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The state that all handles of one registry share: store, limits, estimates and settings.
#[derive(Debug)]
pub(crate) struct Registry<St> {
    pub(crate) store: St,
    pub(crate) permits: Permits,
    pub(crate) estimates: Estimates,
    pub(crate) settings: Settings,
    pub(crate) stop: StopSignal,
    pub(crate) paces: Arc<Paces>,
    /// Sends webhooks, if there are any to send.
    #[cfg(feature = "webhook")]
    pub(crate) notifier: Option<Notifier>,
    /// Canceled when a drain begins, after the permits are closed.
    draining: CancellationToken,
}

impl<St: Store> Registry<St> {
    /// # Errors
    ///
    /// Returns an error if webhooks cannot be sent.
    pub(crate) fn new(store: St, mut settings: Settings) -> Result<Arc<Self>, ConfigError> {
        telemetry::describe();
        let budget = store.budget();
        if let Some(bytes) = settings.max_bytes {
            budget.set_limit(bytes);
        }
        if let Some(timeout) = settings.room_timeout {
            budget.set_room_timeout(timeout);
        }
        // The head of a request needs room too.
        let max_body = budget.share(Purpose::Accepted) / 2;
        lower(&mut settings.max_body, max_body, "max_body");
        lower(&mut settings.max_result, store.max_response(), "max_result");
        #[cfg(feature = "webhook")]
        let notifier = match settings.webhooks.take() {
            Some(webhooks) => {
                let outbox = store.outbox().ok_or(ConfigError::NoOutbox)?;
                Some(Notifier::new(webhooks, outbox)?)
            }
            None => None,
        };
        Ok(Arc::new(Self {
            store,
            permits: Permits::new(settings.max_unfinished, settings.max_unfinished_per_owner),
            estimates: Estimates::new(settings.poll_cost),
            settings,
            stop: StopSignal::default(),
            paces: Arc::default(),
            #[cfg(feature = "webhook")]
            notifier,
            draining: CancellationToken::new(),
        }))
    }
}

/// Lowers a limit to what the store has room for, so that a larger body is refused as too large,
/// not as one that may be sent again.
fn lower(limit: &mut usize, share: usize, setting: &str) {
    if *limit > share {
        tracing::warn!(
            setting,
            from = *limit,
            to = share,
            "lowered a limit to what max_bytes has room for"
        );
        *limit = share;
    }
}

impl<St> Registry<St> {
    /// Completes when a drain begins.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Closes the permits and waits until all are released. After `timeout` it stops the calls of
    /// jobs. Returns the number of jobs that were unfinished then.
    ///
    /// It waits briefly for stopped calls. It waits no longer for requests that are being read or
    /// answered inline. The server must end these.
    pub(crate) async fn drain(&self, timeout: Duration) -> usize {
        self.permits.close();
        self.draining.cancel();
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + FAR_FUTURE);
        let emptied = timeout_at(deadline, self.permits.emptied());
        let left = if emptied.await.is_ok() {
            0
        } else {
            let left = self.permits.jobs();
            self.stop.stop();
            let _ = tokio::time::timeout(STOP_TIMEOUT, self.permits.jobs_ended()).await;
            left
        };
        #[cfg(feature = "webhook")]
        if let Some(notifier) = &self.notifier {
            // A job that was just stopped has deliveries too.
            let deadline = deadline.max(Instant::now() + STOP_TIMEOUT);
            notifier.drain(deadline).await;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Budget, MemoryStore};

    #[tokio::test]
    async fn drain_takes_any_timeout() {
        let store = MemoryStore::new(Duration::ZERO, Budget::new(0));
        let registry = Registry::new(store, Settings::default()).expect("valid settings");
        assert_eq!(registry.drain(Duration::MAX).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn drain_stops_late_calls_and_waits_for_them() {
        let store = MemoryStore::new(Duration::ZERO, Budget::new(0));
        let registry = Registry::new(store, Settings::default()).expect("valid settings");
        let permit = registry.permits.acquire(None).expect("free").into_job();
        let call = tokio::spawn({
            let registry = registry.clone();
            async move {
                registry.stop.stopped().await;
                tokio::time::sleep(STOP_TIMEOUT / 2).await;
                drop(permit);
            }
        });
        assert_eq!(registry.drain(Duration::from_secs(60)).await, 1);
        assert_eq!(registry.permits.count(), 0);
        call.await.expect("no panic");
    }
}
