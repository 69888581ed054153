//! Converts between clocks and the timestamps in records: milliseconds since the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Returns the current time as a timestamp.
pub(super) fn unix_now() -> u64 {
    unix_millis(SystemTime::now())
}

pub(super) fn unix_millis(at: SystemTime) -> u64 {
    as_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn from_unix_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// Converts a timestamp to this process's monotonic clock.
///
/// Returns the current instant if the timestamp lies before the start of that clock.
pub(super) fn instant_at(millis: u64) -> Instant {
    let now = Instant::now();
    let age = Duration::from_millis(unix_now().saturating_sub(millis));
    now.checked_sub(age).unwrap_or(now)
}

/// Converts an instant in the past to wall-clock time.
pub(super) fn system_time(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

pub(super) fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
