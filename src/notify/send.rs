//! Sends one delivery.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio_util::sync::CancellationToken;

use super::{
    receiver_state::AttemptEffect,
    receivers::{AttemptPermit, Receivers, SendPermission},
};
use crate::{
    protocol::shown_url,
    store::{Attempt, AttemptFailure, Delivery, Settlement, SharedOutbox, receiver},
    telemetry,
    webhook::{
        SendFailure, TargetUrl, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, WebhookClient,
        Webhooks, sign,
    },
};

/// The number of attempts beyond the schedule that a suspension can cost. Otherwise a delivery
/// could fail for good without a request.
const MAX_EXTRA_ATTEMPTS: usize = 5;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Signs and sends webhooks.
pub(super) struct Sender {
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) client: WebhookClient,
    pub(super) receivers: Arc<Receivers>,
}

/// A request to a receiver.
pub(super) struct Notification<'a> {
    pub(super) id: String,
    pub(super) url: &'a str,
    pub(super) is_get: bool,
    pub(super) body: Bytes,
}

/// The outcome of an attempt.
struct SendOutcome {
    attempt: Attempt,
    /// The time of the response's `Retry-After`, if the status heeds it, or that of a suspension.
    retry_after: Option<Duration>,
    /// Set if no further attempt can help.
    is_final: bool,
}

/// Sends a delivery that was leased, and settles it. Releases it if it is stopped.
pub(super) async fn deliver<E: Error + Send + Sync + 'static>(
    sender: &Sender,
    outbox: &SharedOutbox<E>,
    delivery: Delivery,
    permission: SendPermission,
    stopped: &CancellationToken,
) {
    let attempt = sender.attempt(&delivery, permission);
    let settlement = match stopped.run_until_cancelled(attempt).await {
        Some(outcome) => sender.settlement(&delivery, outcome),
        None => Settlement::Release,
    };
    match outbox.settle(&delivery, settlement.clone()).await {
        Ok(()) => report(&delivery, &settlement),
        Err(error) => {
            let error = &error as &dyn Error;
            // The lease ends, and the delivery is sent again.
            tracing::warn!(error, id = %delivery.id, "failed to settle a webhook");
        }
    }
}

impl Sender {
    async fn attempt(&self, delivery: &Delivery, permission: SendPermission) -> SendOutcome {
        let permit = match permission {
            SendPermission::Send(permit) => permit,
            SendPermission::Suspended(left) => return SendOutcome::suspended(left),
        };
        let notification = Notification {
            id: delivery.id.to_string(),
            url: &delivery.url,
            is_get: delivery.is_get,
            body: delivery.body.clone(),
        };
        self.send_with(permit, notification).await
    }

    /// Sends a notification of a running job, without retries. Returns `false` if the receiver is
    /// busy, so that nothing was sent.
    pub(super) async fn send_once(&self, notification: Notification<'_>) -> bool {
        let Some(permit) = self.receivers.try_begin(receiver(notification.url)) else {
            return false;
        };
        let (id, url) = (notification.id.clone(), notification.url);
        let SendOutcome { attempt, .. } = self.send_with(permit, notification).await;
        if let Some(failure) = attempt.failure {
            let failure = failure.as_str();
            telemetry::webhook_failed(failure);
            tracing::warn!(
                id,
                url = shown_url(url),
                failure,
                status = attempt.status,
                "failed to notify of a running job"
            );
        }
        true
    }

    async fn send_with(
        &self,
        permit: AttemptPermit,
        notification: Notification<'_>,
    ) -> SendOutcome {
        let outcome = self.send(notification).await;
        permit.end(outcome.effect());
        outcome
    }

    async fn send(&self, notification: Notification<'_>) -> SendOutcome {
        let Notification {
            id,
            url,
            is_get,
            body,
        } = notification;
        // The rule may have changed since the delivery was recorded.
        let Ok(target) = TargetUrl::parse(url, &self.webhooks.client.policy) else {
            return SendOutcome {
                is_final: true,
                ..SendOutcome::failed(AttemptFailure::Forbidden)
            };
        };
        let mut headers = HeaderMap::new();
        let method = if is_get {
            Method::GET
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let timestamp = now.unwrap_or_default().as_secs();
            let signature = sign(&self.webhooks.secrets, &id, timestamp, &body);
            headers.insert(header::CONTENT_TYPE, JSON);
            headers.insert(WEBHOOK_ID, id.try_into().expect("visible ASCII characters"));
            headers.insert(WEBHOOK_TIMESTAMP, timestamp.into());
            headers.insert(WEBHOOK_SIGNATURE, signature);
            Method::POST
        };
        match self.client.send(&target, method, headers, body).await {
            Ok(answer) => SendOutcome::answered(answer.status, answer.retry_after),
            Err(error) => {
                tracing::debug!(error = &error as &dyn Error, "failed to send a webhook");
                SendOutcome::failed(match error.failure() {
                    SendFailure::ForbiddenAddress => AttemptFailure::Forbidden,
                    SendFailure::Dns => AttemptFailure::Dns,
                    SendFailure::Connect => AttemptFailure::Connect,
                    SendFailure::Tls => AttemptFailure::Tls,
                    SendFailure::TimedOut => AttemptFailure::Timeout,
                    SendFailure::Protocol => AttemptFailure::Broken,
                })
            }
        }
    }

    fn settlement(&self, delivery: &Delivery, outcome: SendOutcome) -> Settlement {
        let SendOutcome {
            attempt,
            retry_after,
            is_final,
        } = outcome;
        if attempt.failure.is_none() {
            return Settlement::Delivered(attempt);
        }
        match self.delay(delivery.attempts as usize, attempt.failure) {
            Some(delay) if !is_final => {
                let asked = retry_after.unwrap_or_default();
                let delay = varied(delay).max(asked.mul_f64(rand::random_range(1.0..=1.1)));
                let at = attempt.at.checked_add(delay).unwrap_or(attempt.at);
                Settlement::Retry(attempt, at)
            }
            _ => Settlement::Failed(attempt),
        }
    }

    /// Returns the delay after an attempt that failed, if another one follows.
    fn delay(&self, attempts: usize, failure: Option<AttemptFailure>) -> Option<Duration> {
        let delays = &self.webhooks.delays;
        let is_extra = failure == Some(AttemptFailure::Suspended)
            && attempts < delays.len() + MAX_EXTRA_ATTEMPTS;
        let extra = is_extra.then_some(Duration::ZERO);
        delays.get(attempts).copied().or(extra)
    }
}

impl SendOutcome {
    fn answered(status: StatusCode, retry_after: Option<Duration>) -> Self {
        let asks_to_wait = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        Self {
            attempt: Attempt::answered(SystemTime::now(), status.as_u16()),
            retry_after: retry_after.filter(|_| asks_to_wait),
            // The receiver wants no more of them.
            is_final: status == StatusCode::GONE,
        }
    }

    fn failed(failure: AttemptFailure) -> Self {
        Self {
            attempt: Attempt::failed(SystemTime::now(), failure),
            retry_after: None,
            is_final: false,
        }
    }

    /// The receiver is not tried until the end of its suspension.
    fn suspended(left: Duration) -> Self {
        Self {
            retry_after: Some(left),
            ..Self::failed(AttemptFailure::Suspended)
        }
    }

    fn effect(&self) -> AttemptEffect {
        match (self.attempt.status, self.retry_after) {
            (Some(_), Some(pause)) => AttemptEffect::Pause(pause),
            (Some(status), None) if status < 500 => AttemptEffect::Responded,
            (Some(_), None) => AttemptEffect::ServerError,
            (None, _) => AttemptEffect::NoResponse,
        }
    }
}

/// Varies a delay by up to a tenth, so that deliveries which failed together do not return
/// together.
fn varied(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(0.9..=1.1))
}

fn report(delivery: &Delivery, settlement: &Settlement) {
    let (attempt, next) = match settlement {
        Settlement::Delivered(attempt) => {
            let latency = attempt.at.duration_since(delivery.created_at);
            return telemetry::webhook_delivered(latency.unwrap_or_default());
        }
        Settlement::Failed(attempt) => (attempt, None),
        Settlement::Retry(attempt, at) => (attempt, at.duration_since(attempt.at).ok()),
        Settlement::Release => return,
    };
    let failure = attempt.failure.map_or("", AttemptFailure::as_str);
    telemetry::webhook_failed(failure);
    tracing::warn!(
        id = %delivery.id,
        url = delivery.shown_url(),
        attempt = delivery.attempts + 1,
        failure,
        status = attempt.status,
        next_secs = next.map(|next| next.as_secs()),
        "failed to deliver a webhook"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_decides_whether_to_send_again() {
        let outcome = |status| SendOutcome::answered(status, Some(Duration::from_secs(7)));
        for (status, is_final, retry_after) in [
            (StatusCode::OK, false, None),
            (StatusCode::FOUND, false, None),
            (StatusCode::NOT_FOUND, false, None),
            (StatusCode::GONE, true, None),
            (StatusCode::TOO_MANY_REQUESTS, false, Some(7)),
            (StatusCode::SERVICE_UNAVAILABLE, false, Some(7)),
            (StatusCode::BAD_GATEWAY, false, None),
        ] {
            let outcome = outcome(status);
            assert_eq!(outcome.is_final, is_final, "{status}");
            assert_eq!(outcome.retry_after.map(|it| it.as_secs()), retry_after);
            assert_eq!(outcome.attempt.failure.is_none(), status.is_success());
        }
    }

    #[test]
    fn delay_varies_by_a_tenth() {
        let delay = Duration::from_secs(100);
        for _ in 0..1_000 {
            let varied = varied(delay).as_secs_f64();
            assert!((90.0..=110.0).contains(&varied), "{varied}");
        }
    }
}
