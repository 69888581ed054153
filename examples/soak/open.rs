//! The requests that the server has not answered to their end.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The requests that the server has not answered to their end.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenRequests(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The request line of each, and the time at which it arrived.
    requests: BTreeMap<u64, (String, Instant)>,
}

/// A request of [`OpenRequests`] until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    all: OpenRequests,
    number: u64,
}

impl OpenRequests {
    pub(crate) fn begin(&self, line: String) -> OpenRequest {
        let all = self.clone();
        let number = self.with(|state| {
            state.next += 1;
            state.requests.insert(state.next, (line, Instant::now()));
            state.next
        });
        OpenRequest { all, number }
    }

    /// Returns the requests that are older than `age`, a line each.
    pub(crate) fn older_than(&self, age: Duration) -> impl fmt::Display + use<> {
        self.with(|state| {
            let old = state.requests.values().filter(|(_, at)| at.elapsed() > age);
            let lines: Vec<_> = old.map(|(line, _)| line.as_str()).collect();
            lines.join("; ")
        })
    }

    /// Held for one step, never across an await.
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.all.with(|state| state.requests.remove(&self.number));
    }
}
