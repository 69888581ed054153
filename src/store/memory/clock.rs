//! The clock of a store in memory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::store::default_key_retention;

/// Counts milliseconds since a store was created, and knows how long ended jobs are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    epoch: Instant,
    retain: u64,
}

impl Clock {
    pub(super) fn new(retain: Duration) -> Self {
        Self {
            epoch: Instant::now(),
            retain: whole_millis(retain),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.millis(Instant::now())
    }

    pub(super) fn millis(&self, at: Instant) -> u64 {
        whole_millis(at.saturating_duration_since(self.epoch))
    }

    pub(super) fn instant(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    /// Returns how long a key is remembered from the end of its job, in milliseconds.
    pub(super) fn key_retention(&self, keep_for: Option<Duration>) -> u64 {
        let retain = Duration::from_millis(self.retain);
        whole_millis(keep_for.unwrap_or_else(|| default_key_retention(retain)))
    }

    /// Returns when a job that ended at `finished` expires.
    pub(super) fn expiry(&self, finished: u64) -> u64 {
        finished.saturating_add(self.retain)
    }
}

/// A number of milliseconds in 6 bytes, at most 8,900 years. A larger number becomes the maximum.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredMillis([u8; 6]);

impl StoredMillis {
    pub(super) fn new(millis: u64) -> Self {
        let [a, b, c, d, e, f, _, _] = millis.min((1 << 48) - 1).to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    pub(super) fn get(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

pub(super) fn since_unix_epoch(at: SystemTime) -> u64 {
    whole_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn at_unix_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn whole_millis(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000);
    seconds.saturating_add(duration.subsec_millis().into())
}
