//! Counts outcomes.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::open::OpenRequests;

/// The maximum number of wrong outcomes that are printed.
const MAX_PRINTED: u64 = 20;

/// The outcomes of all exchanges.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) exchanges: Count,
    /// Requests that were answered 202, or whose job a repeat joined.
    pub(crate) accepted: Count,
    /// Jobs that a client saw end, or deleted.
    pub(crate) ended: Count,
    /// Requests that were answered 503, because there was no permit or no room.
    pub(crate) refused: Count,
    /// Requests over HTTP/1.1 that got no answer, because the server closed the connection.
    ///
    /// It does so after a refusal, since it has not read the body (RFC 9112 §9.3). A client that
    /// still sends the body may not read the answer, and the next request may use the connection.
    pub(crate) cut: Count,
    /// The 503s that the server sent, the requests of clients that hung up included.
    pub(crate) refusals: Count,
    /// Jobs whose result had no room.
    pub(crate) too_large: Count,
    /// Results that made room for others before their client read them.
    pub(crate) evicted: Count,
    /// Connections that a client closed while its request was sent or answered.
    pub(crate) hung_up: Count,
    /// Exchanges and jobs that did not end in time.
    pub(crate) stuck: Count,
    pub(crate) open: OpenRequests,
    wrong: Count,
}

/// A number that many tasks count. Nothing is read because of it, so no order is needed.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, number: u64) -> u64 {
        self.0.fetch_add(number, Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Counts a wrong outcome, and prints it if it is one of the first.
    pub(crate) fn wrong(&self, outcome: impl fmt::Display) {
        if self.wrong.add(1) < MAX_PRINTED {
            eprintln!("wrong: {outcome}");
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.stuck.get() == 0
            && self.wrong.get() == 0
            && self.accepted.get() == self.ended.get()
            // Each refusal closes at most one connection.
            && self.refused.get().max(self.cut.get()) <= self.refusals.get()
    }

    pub(crate) fn line(&self) -> String {
        let [accepted, ended, refused] =
            [&self.accepted, &self.ended, &self.refused].map(Count::get);
        let wrong = self.wrong.get();
        format!("accepted {accepted}, ended {ended}, refused {refused}, wrong {wrong}")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("accepted", &self.accepted),
            ("ended", &self.ended),
            ("refused", &self.refused),
            ("cut", &self.cut),
            ("too large", &self.too_large),
            ("evicted", &self.evicted),
            ("hung up", &self.hung_up),
            ("stuck", &self.stuck),
            ("wrong", &self.wrong),
        ];
        let lines = counts.map(|(name, count)| format!("{name:<12} {}", count.get()));
        f.write_str(&lines.join("\n"))
    }
}
