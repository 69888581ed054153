//! Delays between attempts of an operation that failed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::NatsError;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// An exponential backoff with a deadline.
pub(super) struct Retry {
    /// `None` if the deadline lies beyond the range of the clock: never give up.
    deadline: Option<Instant>,
    delay: Duration,
}

impl Retry {
    /// Allows retries until `patience` has passed.
    pub(super) fn within(patience: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(patience),
            delay: FIRST_DELAY,
        }
    }

    /// Waits before the next attempt. Returns the error if the deadline has passed.
    pub(super) async fn wait(&mut self, error: NatsError, subject: &str) -> Result<(), NatsError> {
        if self.deadline.is_some_and(|end| Instant::now() >= end) {
            return Err(error);
        }
        // A leader election takes a few attempts, which are no reason for a warning.
        if self.delay < MAX_DELAY {
            tracing::debug!(%error, subject, "retrying a JetStream request");
        } else {
            tracing::warn!(%error, subject, "still retrying a JetStream request");
        }
        sleep(self.delay).await;
        self.delay = (self.delay * 2).min(MAX_DELAY);
        Ok(())
    }
}
