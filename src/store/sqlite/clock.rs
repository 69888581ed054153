//! Converts between clocks and the timestamps in the file: milliseconds since the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A timestamp, or a duration in milliseconds. SQLite has signed integers only.
pub(super) type Millis = i64;

/// Returns the current time as a timestamp.
pub(super) fn unix_now() -> Millis {
    unix_millis(SystemTime::now())
}

pub(super) fn unix_millis(at: SystemTime) -> Millis {
    as_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn from_unix_millis(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.try_into().unwrap_or(0))
}

pub(super) fn as_millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// Converts a timestamp to this process's monotonic clock.
///
/// Returns the current instant if the timestamp lies before the start of that clock.
pub(super) fn instant_at(millis: Millis) -> Instant {
    let age = unix_now().saturating_sub(millis).try_into().unwrap_or(0);
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(age)).unwrap_or(now)
}

/// Converts an instant in the past to a timestamp.
pub(super) fn timestamp(at: Instant) -> Millis {
    unix_now().saturating_sub(as_millis(at.elapsed()))
}
