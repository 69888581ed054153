//! The state that all handles of one registry share, and its drain.

use std::{sync::Arc, time::Duration};

use http::{Response, header};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    awaited::AwaitedResults,
    config::{ConfigError, Settings},
    estimate::Estimates,
    job::Snapshot,
    limit::{Paces, Permits, Purpose},
    problem::RETRY_AFTER_IN_DRAIN,
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
    pub(crate) awaited: Arc<AwaitedResults>,
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
        let awaited = AwaitedResults::new(!store.is_durable());
        Ok(Arc::new(Self {
            store,
            permits: Permits::new(settings.max_unfinished, settings.max_unfinished_per_owner),
            estimates: Estimates::new(settings.poll_cost),
            settings,
            stop: StopSignal::default(),
            paces: Arc::default(),
            awaited: Arc::new(awaited),
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

    /// Returns the `Retry-After` of a response that shows this job, and
    /// [records](Self::record_shown) it.
    pub(crate) fn show(&self, job: &Snapshot) -> Option<u64> {
        let retry_after = self.retry_after(job);
        self.record_shown(job, retry_after.unwrap_or_default());
        retry_after
    }

    /// Returns the `Retry-After` of a response that shows this job, in whole seconds, or `None` if
    /// the job has ended.
    pub(crate) fn retry_after(&self, job: &Snapshot) -> Option<u64> {
        let is_ended = job.status.is_ended();
        (!is_ended).then(|| self.limit_retry_after(job.retry_after(&self.estimates)))
    }

    /// Records that a client is shown a job as it is. Before the end, the client comes back in
    /// `seconds`.
    pub(crate) fn record_shown(&self, job: &Snapshot, seconds: u64) {
        if !job.status.is_ended() {
            self.awaited.schedule_poll(job.id, seconds);
        } else if job.response.is_some() {
            // The client asks for the result next.
            self.awaited.schedule_fetch(job.id, 0);
        } else {
            self.awaited.taken(job.id);
        }
    }

    /// Limits a `Retry-After`, in seconds, if a drain has begun.
    pub(crate) fn limit_retry_after(&self, seconds: u64) -> u64 {
        if self.permits.is_closed() {
            seconds.min(RETRY_AFTER_IN_DRAIN)
        } else {
            seconds
        }
    }

    /// Limits the `Retry-After` of the layer's own answer, if a drain has begun.
    pub(crate) fn hasten<B>(&self, answer: &mut Response<B>) {
        if self.permits.is_closed()
            && let Some(retry_after) = answer.headers_mut().get_mut(header::RETRY_AFTER)
        {
            *retry_after = RETRY_AFTER_IN_DRAIN.into();
        }
    }

    /// Closes the permits and waits until all are released, and until clients have the results that
    /// they will come back for. After `timeout` it stops the calls of jobs. Returns the number of
    /// jobs that were unfinished then.
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
            let began = Instant::now();
            notifier.drain(deadline).await;
            // A webhook makes its receiver fetch a result.
            self.awaited.extend(began);
        }
        let _ = timeout_at(deadline, self.awaited.settled()).await;
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
