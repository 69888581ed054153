//! Computes the pauses between polls.

use std::time::Duration;

use super::{backoff::Backoff, options::FollowOptions};

/// The time after which a response counts as held.
const MIN_HELD: Duration = Duration::from_secs(1);

/// The pauses between the polls of one job.
#[derive(Debug)]
pub(super) struct PollSchedule {
    backoff: Backoff,
    max_failures: u32,
    /// The number of consecutive failures.
    failures: u32,
    /// The number of pauses without a `Retry-After`.
    unhinted: u32,
    max_wait: Duration,
}

impl PollSchedule {
    pub(super) fn new(options: &FollowOptions) -> Self {
        Self {
            backoff: options.backoff,
            max_failures: options.max_failures,
            failures: 0,
            unhinted: 0,
            max_wait: options.max_wait,
        }
    }

    /// Returns the longest `Prefer: wait` to send.
    pub(super) fn max_wait(&self) -> Duration {
        self.max_wait
    }

    /// Forgets earlier failures after a response that was usable.
    pub(super) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// Returns the pause before the next poll of an unfinished job.
    pub(super) fn next_pause(&mut self, retry_after: Option<Duration>) -> Duration {
        if let Some(retry_after) = retry_after {
            return retry_after.max(self.backoff.min);
        }
        self.unhinted = self.unhinted.saturating_add(1);
        self.backoff.pause(self.unhinted - 1)
    }

    /// Returns the pause before the next request for a stream that has no head yet.
    ///
    /// `Retry-After` is about the end of the job, and the head comes earlier. So a server that has
    /// held the last request for a while gets the next one at once.
    pub(super) fn stream_pause(
        &mut self,
        retry_after: Option<Duration>,
        held: Duration,
    ) -> Duration {
        if held >= MIN_HELD {
            return Duration::ZERO;
        }
        self.next_pause(retry_after).saturating_sub(held)
    }

    /// Returns the pause after a failure, or `None` after too many consecutive failures.
    pub(super) fn retry_pause(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        // A proxy in between may close requests that are held as long as the last one.
        self.max_wait /= 2;
        if self.failures > self.max_failures {
            return None;
        }
        Some(match retry_after {
            Some(retry_after) => retry_after.max(self.backoff.min),
            None => self.backoff.pause(self.failures - 1),
        })
    }
}
