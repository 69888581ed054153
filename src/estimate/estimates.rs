//! The estimator of a registry.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;

use super::{
    backoff::backoff,
    elapsed::Elapsed,
    forecast::Forecast,
    kind::Kind,
    kind_name::with_default_name,
    kinds::Kinds,
    sample::{Sample, unix_millis},
};

/// The `Retry-After` of a 503 for lack of room, in seconds. It is short, since any job that ends
/// makes room.
pub(crate) const RETRY_AFTER_WHEN_FULL: u64 = 5;

/// The estimator of a registry: learns from ended jobs how long the next ones take.
#[derive(Debug)]
pub(crate) struct Estimates {
    kinds: Kinds,
    /// The forecast for a kind without samples.
    unknown: Arc<Forecast>,
    /// The cost of one poll, in seconds of late notification.
    poll_cost: f64,
}

impl Estimates {
    pub(crate) fn new(poll_cost: Duration) -> Self {
        // Above 0, so that a quotient stays finite.
        let poll_cost = poll_cost.as_secs_f64().max(1e-6);
        Self {
            kinds: Kinds::default(),
            unknown: Arc::new(Forecast::unknown(poll_cost)),
            poll_cost,
        }
    }

    /// Returns the kind of a request that the application does not classify.
    pub(crate) fn default_kind(&self, method: &Method, path: &str) -> Kind {
        with_default_name(method, path, |name| self.kind(name))
    }

    /// Returns the kind of this name, with a handle to its profile if it has one. This is the only
    /// look-up that a request of a known kind needs.
    pub(crate) fn kind(&self, name: &str) -> Kind {
        let known = self.kinds.get(name.as_bytes());
        known.unwrap_or_else(|| Kind::new(name))
    }

    /// Returns the expected time from the arrival of a request to the end of its job.
    pub(crate) fn expected_total(&self, kind: &Kind, elapsed: Elapsed) -> Option<Duration> {
        let remaining = self.forecast(kind).remaining(elapsed)?;
        Duration::try_from_secs_f64(elapsed.age() + remaining).ok()
    }

    /// Returns the best delay until the next poll of an unfinished job, in whole seconds, at least
    /// 1.
    ///
    /// `expected_run` is the run time in seconds that the last estimate of the job implied.
    pub(crate) fn next_poll(
        &self,
        kind: Option<&Kind>,
        elapsed: Elapsed,
        expected_run: Option<f64>,
    ) -> u64 {
        let forecast = kind.map(|kind| self.forecast(kind));
        let delay = forecast.and_then(|forecast| forecast.next_poll(elapsed, expected_run));
        delay.unwrap_or_else(|| backoff(elapsed.age()))
    }

    /// Learns from a job that succeeded. A job that the kind's history has is ignored, so each job
    /// counts once, whether it ran in this process, was read from the store, or both.
    pub(crate) fn learn(&self, kind: &Kind, sample: Sample, now: SystemTime) {
        let now = unix_millis(now);
        self.kinds.learn(kind, sample, now, self.poll_cost);
    }

    fn forecast(&self, kind: &Kind) -> Arc<Forecast> {
        let known = self.kinds.forecast(kind);
        known.unwrap_or_else(|| self.unknown.clone())
    }
}
