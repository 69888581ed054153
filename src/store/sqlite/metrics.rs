//! Metrics of the file, through the `metrics` facade, or nothing.

use std::time::Duration;

/// Set if measurements have a use.
pub(super) const ARE_ENABLED: bool = cfg!(feature = "metrics");

/// Records a transaction of so many steps.
#[cfg(feature = "metrics")]
pub(super) fn committed(took: Duration, steps: usize, is_ok: bool) {
    let outcome = if is_ok { "committed" } else { "failed" };
    metrics::histogram!("tower_accepted_sqlite_commit_seconds", "outcome" => outcome)
        .record(took.as_secs_f64());
    metrics::counter!("tower_accepted_sqlite_steps_total", "outcome" => outcome)
        .increment(steps as u64);
}

/// Records the size of the file and what waits in it.
#[cfg(feature = "metrics")]
#[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
pub(super) fn measured(disk_bytes: u64, log_bytes: u64, waiting: u64) {
    metrics::gauge!("tower_accepted_sqlite_disk_bytes").set(disk_bytes as f64);
    metrics::gauge!("tower_accepted_sqlite_wal_bytes").set(log_bytes as f64);
    metrics::gauge!("tower_accepted_sqlite_waiting_jobs").set(waiting as f64);
}

#[cfg(not(feature = "metrics"))]
pub(super) fn committed(_: Duration, _: usize, _: bool) {}

#[cfg(not(feature = "metrics"))]
pub(super) fn measured(_: u64, _: u64, _: u64) {}
