//! Times that processes tell one another: milliseconds since the epoch of Unix, by the clock on the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

pub(super) fn now() -> u64 {
    millis(SystemTime::now())
}

pub(super) fn millis(at: SystemTime) -> u64 {
    whole_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// A time by this process's monotonic clock, as well as it goes: not before the clock began.
pub(super) fn instant(millis: u64) -> Instant {
    let now = Instant::now();
    let age = Duration::from_millis(self::now().saturating_sub(millis));
    now.checked_sub(age).unwrap_or(now)
}

/// A time by the clock on the wall.
pub(super) fn time_of(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

pub(super) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
