//! What the operator sees, by the `metrics` facade: names and units are told in `guide/metrics.md`.

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
const WAITERS: &str = "tower_accepted_waiters";
const STREAMS: &str = "tower_accepted_streams";

/// Tells the recorder what there will be.
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
        "Requests that could not become jobs; where no 202 was owed they passed through."
    );
    describe_counter!(ENDED, Unit::Count, "Jobs that ended, by how.");
    describe_gauge!(
        UNFINISHED,
        Unit::Count,
        "Requests taken on and not done with: being read, queued, running, winding down."
    );
    describe_gauge!(
        BUDGET,
        Unit::Bytes,
        "Bytes taken of the budget for bodies, jobs and results."
    );
    describe_histogram!(
        QUEUED,
        Unit::Seconds,
        "From the request to the call of the inner service."
    );
    describe_histogram!(
        RAN,
        Unit::Seconds,
        "From the call of the inner service to the job's end."
    );
    describe_gauge!(
        WAITERS,
        Unit::Count,
        "Requests that are held until a job changes or ends."
    );
    describe_gauge!(STREAMS, Unit::Count, "Streams of events that are open.");
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

pub(crate) fn ended(how: &'static str) {
    counter!(ENDED, "end" => how).increment(1);
}

/// Takes note of how long a job took that was called; `succeeded` lets its kind be told by name.
pub(crate) fn took(kind: &str, succeeded: bool, queued: Duration, ran: Duration) {
    let kind = label(kind, succeeded);
    histogram!(QUEUED, "kind" => kind.clone()).record(queued);
    histogram!(RAN, "kind" => kind).record(ran);
}

/// The names of kinds that are told. Locked for writing only where one comes in.
static TOLD: LazyLock<RwLock<HashSet<Arc<str>>>> = LazyLock::new(RwLock::default);

/// How many kinds are told by name at most, as long as the process lives: each is a series that the
/// operator's database keeps.
const MOST: usize = 100;

fn label(kind: &str, succeeded: bool) -> SharedString {
    let told = TOLD.read().get(kind).cloned();
    let told = told.or_else(|| {
        // Whether there is room is read first, so that a flood of kinds does not queue up to write.
        let has_room = succeeded && TOLD.read().len() < MOST;
        has_room.then(|| enter(kind)).flatten()
    });
    told.map_or(SharedString::const_str("other"), SharedString::from_shared)
}

fn enter(kind: &str) -> Option<Arc<str>> {
    let mut told = TOLD.write();
    if told.len() < MOST {
        told.insert(kind.into());
    }
    told.get(kind).cloned()
}

pub(crate) fn reserved(bytes: usize) {
    gauge!(BUDGET).increment(bytes as f64);
}

pub(crate) fn released(bytes: usize) {
    gauge!(BUDGET).decrement(bytes as f64);
}

/// One that is counted for as long as it is there.
#[derive(Debug)]
pub(crate) struct Counted(Count);

/// What is counted: of a byte, since a job has one.
#[derive(Debug, Clone, Copy)]
enum Count {
    Unfinished,
    Waiters,
    Streams,
}

impl Counted {
    pub(crate) fn unfinished() -> Self {
        Self::of(Count::Unfinished)
    }

    pub(crate) fn waiter() -> Self {
        Self::of(Count::Waiters)
    }

    pub(crate) fn stream() -> Self {
        Self::of(Count::Streams)
    }

    fn of(count: Count) -> Self {
        gauge!(count.name()).increment(1.0);
        Self(count)
    }
}

impl Count {
    fn name(self) -> &'static str {
        match self {
            Self::Unfinished => UNFINISHED,
            Self::Waiters => WAITERS,
            Self::Streams => STREAMS,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(self.0.name()).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_kinds_are_told_by_name_and_none_that_did_not_succeed() {
        let mut labels = HashSet::new();
        for n in 0..1_000 {
            let (kind, succeeded) = (format!("POST /{n}"), n % 2 == 0);
            let label = label(&kind, succeeded).into_owned();
            assert!(label == "other" || (label == kind && succeeded));
            labels.insert(label);
        }
        assert_eq!(labels.len(), MOST + 1);
        let told = "POST /0";
        assert_eq!(label(told, false).into_owned(), "POST /0");
    }
}
