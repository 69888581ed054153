//! Records metrics through the `metrics` facade; `guide/metrics.md` describes them.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use metrics::{
    SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use parking_lot::RwLock;

const ACCEPTED: &str = "tower_accepted_accepted_total";
const JOINED: &str = "tower_accepted_joined_total";
const REFUSED: &str = "tower_accepted_refused_total";
const ENDED: &str = "tower_accepted_ended_total";
const UNFINISHED: &str = "tower_accepted_unfinished";
const BUDGET: &str = "tower_accepted_budget_bytes";
const QUEUED: &str = "tower_accepted_queue_seconds";
const RAN: &str = "tower_accepted_run_seconds";
#[cfg(feature = "webhook")]
const WEBHOOKS_DELIVERED: &str = "tower_accepted_webhooks_delivered_total";
const WEBHOOKS_FAILED: &str = "tower_accepted_webhook_failures_total";
#[cfg(feature = "webhook")]
const WEBHOOKS_PENDING: &str = "tower_accepted_webhooks_pending";
#[cfg(feature = "webhook")]
const WEBHOOKS_OLDEST: &str = "tower_accepted_webhooks_oldest_pending_seconds";
#[cfg(feature = "webhook")]
const WEBHOOK_LATENCY: &str = "tower_accepted_webhook_delivery_seconds";
const WAITERS: &str = "tower_accepted_waiters";
const STREAMS: &str = "tower_accepted_streams";

/// Registers the descriptions of all metrics.
pub(crate) fn describe() {
    describe_counter!(ACCEPTED, Unit::Count, "Requests that became jobs.");
    describe_counter!(
        JOINED,
        Unit::Count,
        "Requests that joined the job of an earlier one by their idempotency key."
    );
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Requests that could not become jobs, even if they then passed through."
    );
    describe_counter!(ENDED, Unit::Count, "Jobs that ended.");
    describe_gauge!(
        UNFINISHED,
        Unit::Count,
        "Requests and jobs that hold a permit: read, queued, running or canceled."
    );
    describe_gauge!(
        BUDGET,
        Unit::Bytes,
        "Bytes of the budget that bodies, jobs and results use."
    );
    describe_histogram!(
        QUEUED,
        Unit::Seconds,
        "Time from the request to the call of the inner service."
    );
    describe_histogram!(
        RAN,
        Unit::Seconds,
        "Time from the call of the inner service to the end of the job."
    );
    describe_gauge!(
        WAITERS,
        Unit::Count,
        "Requests that wait for a job to change or end."
    );
    describe_gauge!(STREAMS, Unit::Count, "Open streams of events or of output.");
    #[cfg(feature = "webhook")]
    describe_webhooks();
}

#[cfg(feature = "webhook")]
fn describe_webhooks() {
    describe_counter!(
        WEBHOOKS_DELIVERED,
        Unit::Count,
        "Webhooks that receivers have acknowledged."
    );
    describe_counter!(
        WEBHOOKS_FAILED,
        Unit::Count,
        "Attempts to send a webhook that failed."
    );
    describe_gauge!(WEBHOOKS_PENDING, Unit::Count, "Webhooks to be sent.");
    describe_gauge!(
        WEBHOOKS_OLDEST,
        Unit::Seconds,
        "Age of the oldest webhook to be sent."
    );
    describe_histogram!(
        WEBHOOK_LATENCY,
        Unit::Seconds,
        "Time from the end of a job until a receiver has acknowledged its webhook."
    );
}

pub(crate) fn accepted() {
    counter!(ACCEPTED).increment(1);
}

pub(crate) fn joined() {
    counter!(JOINED).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn ended(end: &'static str) {
    counter!(ENDED, "end" => end).increment(1);
}

/// Records the durations of an ended job. Only a job that succeeded can name its kind.
pub(crate) fn took(kind: &str, succeeded: bool, queued: Duration, ran: Duration) {
    let kind = label(kind, succeeded);
    histogram!(QUEUED, "kind" => kind.clone()).record(queued);
    histogram!(RAN, "kind" => kind).record(ran);
}

/// The kinds with a label of their own. Locked for writing only to add one.
static NAMED_KINDS: LazyLock<RwLock<HashSet<Arc<str>>>> = LazyLock::new(RwLock::default);

/// The maximum number of kinds with a label of their own, as long as the process lives. Each is a
/// series in the operator's database.
const MAX_NAMED_KINDS: usize = 100;

fn label(kind: &str, succeeded: bool) -> SharedString {
    let name = NAMED_KINDS.read().get(kind).cloned();
    let name = name.or_else(|| {
        // Checked under the read lock: once the set is full, no kind takes the write lock.
        let has_room = succeeded && NAMED_KINDS.read().len() < MAX_NAMED_KINDS;
        has_room.then(|| add_kind(kind)).flatten()
    });
    name.map_or(SharedString::const_str("other"), SharedString::from_shared)
}

fn add_kind(kind: &str) -> Option<Arc<str>> {
    let mut names = NAMED_KINDS.write();
    if names.len() < MAX_NAMED_KINDS {
        names.insert(kind.into());
    }
    names.get(kind).cloned()
}

#[cfg(feature = "webhook")]
pub(crate) fn webhook_delivered(latency: Duration) {
    counter!(WEBHOOKS_DELIVERED).increment(1);
    histogram!(WEBHOOK_LATENCY).record(latency);
}

pub(crate) fn webhook_failed(reason: &'static str) {
    counter!(WEBHOOKS_FAILED, "reason" => reason).increment(1);
}

/// Records the number of pending webhooks, and the age of the oldest.
#[cfg(feature = "webhook")]
pub(crate) fn webhooks_pending(pending: u64, oldest: Duration) {
    gauge!(WEBHOOKS_PENDING).set(pending as f64);
    gauge!(WEBHOOKS_OLDEST).set(oldest.as_secs_f64());
}

pub(crate) fn reserved(bytes: usize) {
    gauge!(BUDGET).increment(bytes as f64);
}

pub(crate) fn released(bytes: usize) {
    gauge!(BUDGET).decrement(bytes as f64);
}

/// Increments a gauge, and decrements it when dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard(GaugeName);

/// A gauge. It takes one byte instead of a name's sixteen, because every job has a guard.
#[derive(Debug, Clone, Copy)]
enum GaugeName {
    Unfinished,
    Waiters,
    Streams,
}

impl GaugeGuard {
    pub(crate) fn unfinished() -> Self {
        Self::new(GaugeName::Unfinished)
    }

    pub(crate) fn waiter() -> Self {
        Self::new(GaugeName::Waiters)
    }

    pub(crate) fn stream() -> Self {
        Self::new(GaugeName::Streams)
    }

    fn new(name: GaugeName) -> Self {
        gauge!(name.as_str()).increment(1.0);
        Self(name)
    }
}

impl GaugeName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unfinished => UNFINISHED,
            Self::Waiters => WAITERS,
            Self::Streams => STREAMS,
        }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        gauge!(self.0.as_str()).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundred_kinds_that_succeeded_have_labels() {
        let mut labels = HashSet::new();
        for n in 0..1_000 {
            let (kind, succeeded) = (format!("POST /{n}"), n % 2 == 0);
            let label = label(&kind, succeeded).into_owned();
            assert!(label == "other" || (label == kind && succeeded));
            labels.insert(label);
        }
        assert_eq!(labels.len(), MAX_NAMED_KINDS + 1);
        assert_eq!(label("POST /0", false).into_owned(), "POST /0");
    }
}
