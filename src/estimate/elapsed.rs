//! The time that a job has spent in each stage.

use std::time::Duration;

use tokio::time::Instant;

/// The time that an unfinished job has spent in each stage, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Elapsed {
    /// The inner service has not been called yet.
    Queued { waited: f64 },
    /// The call is running. `progress` is the fraction that it last reported.
    Running {
        waited: f64,
        ran: f64,
        progress: Option<f64>,
    },
}

impl Elapsed {
    /// Splits the time since the request arrived. `waited` is the part of it before the call;
    /// `None` if the call has not started.
    pub(crate) fn new(age: Duration, waited: Option<Duration>, progress: Option<f64>) -> Self {
        match waited {
            None => Self::Queued {
                waited: age.as_secs_f64(),
            },
            Some(waited) => Self::Running {
                waited: waited.as_secs_f64(),
                ran: age.saturating_sub(waited).as_secs_f64(),
                progress,
            },
        }
    }

    /// Returns what has elapsed by `now` for a request that arrived at `created`. `started` is when
    /// the inner service was called.
    pub(crate) fn at(
        now: Instant,
        created: Instant,
        started: Option<Instant>,
        progress: Option<f64>,
    ) -> Self {
        let waited = started.map(|started| started.saturating_duration_since(created));
        Self::new(now.saturating_duration_since(created), waited, progress)
    }

    /// Returns the seconds since the request arrived.
    pub(super) fn age(self) -> f64 {
        match self {
            Self::Queued { waited } => waited,
            Self::Running { waited, ran, .. } => waited + ran,
        }
    }
}
