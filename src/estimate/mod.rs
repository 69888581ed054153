//! When a job may be done, and when it is worth asking again.
//!
//! What is told of a job comes from the last jobs of its [`Kind`] that succeeded. [`Kinds`] keeps their
//! [`Past`](past::Past): when each ended, how long it waited, how long it ran and how its progress went. Of that a
//! [`Forecast`] is made: [`change`] finds since when it holds, [`Distribution`](distribution::Distribution)
//! smooths the durations, [`Plan`](plan::Plan) finds when best to ask, and [`Pace`](pace::Pace) reads
//! progress. Where nothing is known, [`back_off`]. Through an [`Exchange`] processes learn of one another's jobs.

mod back_off;
mod change;
mod distribution;
mod exchange;
mod forecast;
mod grid;
mod history;
mod kind;
mod kinds;
mod pace;
mod past;
mod plan;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use http::Method;
use tokio::time::Instant;

use self::{
    back_off::back_off,
    exchange::Exchange,
    forecast::{Forecast, Standing},
    kind::with_name,
    kinds::Kinds,
    past::Seen,
};
pub use self::{
    exchange::{Experience, Lessons},
    kind::Kind,
};
pub(crate) use self::{kind::PathStart, pace::Halfway};
use crate::job::Snapshot;

/// `Retry-After` where there is no room: in whole seconds, short, since room comes with any job's
/// end.
pub(crate) const WHEN_FULL: u64 = 5;

/// What is known of how long requests take.
#[derive(Debug)]
pub(crate) struct Estimates {
    kinds: Kinds,
    /// What is told of a kind of which nothing is known.
    unknown: Arc<Forecast>,
    /// What a poll costs, in seconds.
    poll_cost: f64,
    /// With other processes, where anybody tells them.
    exchange: OnceLock<Exchange>,
}

impl Estimates {
    pub(crate) fn new(poll_cost: Duration) -> Self {
        // So that what is divided by it stays finite.
        let poll_cost = poll_cost.as_secs_f64().max(1e-6);
        Self {
            kinds: Kinds::default(),
            unknown: Arc::new(Forecast::unknown(poll_cost)),
            poll_cost,
            exchange: OnceLock::new(),
        }
    }

    /// The kind of a request of which nobody says what it is.
    pub(crate) fn kind_of(&self, method: &Method, path: &str) -> Kind {
        with_name(method, path, |name| self.kind(name))
    }

    /// The kind of this name.
    pub(crate) fn kind(&self, name: &str) -> Kind {
        self.kinds.known(name).unwrap_or_else(|| Kind::new(name))
    }

    /// How long after its request a job may be done whose call began at `started`, if it has, and which is so
    /// far by `now`.
    pub(crate) fn whole(
        &self,
        kind: &Kind,
        now: Instant,
        created: Instant,
        started: Option<Instant>,
        fraction: Option<f64>,
    ) -> Option<Duration> {
        let age = now.saturating_duration_since(created);
        let standing = match started {
            None => Standing::Queued(age.as_secs_f64()),
            Some(started) => {
                let ran = now.saturating_duration_since(started);
                Standing::Running(ran.as_secs_f64(), fraction)
            }
        };
        let left = self.forecast(kind).left(standing)?;
        age.checked_add(Duration::try_from_secs_f64(left).ok()?)
    }

    /// After how many whole seconds from `now` it is worth asking again for an unfinished job.
    pub(crate) fn retry_after(&self, job: &Snapshot, now: Instant) -> u64 {
        let age = now.saturating_duration_since(job.created).as_secs_f64();
        let since_created = |at: SystemTime| {
            let since = at.duration_since(job.created_at);
            since.unwrap_or_default().as_secs_f64()
        };
        let waited = job.started_at.map(since_created);
        let standing = match waited {
            None => Standing::Queued(age),
            Some(waited) => Standing::Running((age - waited).max(0.0), job.progress.fraction),
        };
        let whole = waited.and_then(|waited| {
            let finish = job.estimated_finish_at.map(since_created)?;
            Some(finish - waited)
        });
        let forecast = job.kind.as_ref().map(|kind| self.forecast(kind));
        let next = forecast.and_then(|forecast| forecast.next(standing, whole));
        next.unwrap_or_else(|| back_off(age))
    }

    /// Takes note of a job that has succeeded, after it had waited and run for so long.
    pub(crate) fn learn(
        &self,
        kind: &Kind,
        created_at: SystemTime,
        queued: Duration,
        ran: Duration,
        halfway: &Halfway,
    ) {
        let seen = Seen::new(created_at, queued, ran, halfway);
        if let Some(exchange) = self.exchange.get() {
            exchange.note(kind, seen);
        }
        self.kinds.push(kind, &[seen], seen.at(), self.poll_cost);
    }

    fn forecast(&self, kind: &Kind) -> Arc<Forecast> {
        let known = self.kinds.forecast(kind);
        known.unwrap_or_else(|| self.unknown.clone())
    }
}
