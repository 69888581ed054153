//! The time limit of one followed job.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::error::Reason;

/// The latest time for the head of a followed job's response.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deadline {
    Never,
    At { instant: Instant, timeout: Duration },
}

impl Deadline {
    /// Starts `timeout` now. A timeout past the end of the clock is no limit.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        let at = |timeout| {
            let instant = Instant::now().checked_add(timeout)?;
            Some(Self::At { instant, timeout })
        };
        timeout.and_then(at).unwrap_or(Self::Never)
    }

    pub(super) fn remaining(self) -> Duration {
        match self {
            Self::Never => Duration::MAX,
            Self::At { instant, .. } => instant.saturating_duration_since(Instant::now()),
        }
    }

    /// Awaits `future`, or returns [`Reason::TimedOut`] if the deadline passes first.
    pub(super) async fn limit<T>(self, future: impl Future<Output = T>) -> Result<T, Reason> {
        match self {
            Self::Never => Ok(future.await),
            Self::At { instant, timeout } => timeout_at(instant, future)
                .await
                .map_err(|_| Reason::TimedOut(timeout)),
        }
    }
}
