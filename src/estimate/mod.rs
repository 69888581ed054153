//! When a job may be done, and when it is worth asking again.

mod back_off;
mod kind;

use std::time::Duration;

use http::Method;

pub use self::kind::Kind;
pub(crate) use self::kind::PathStart;
use self::{back_off::back_off, kind::name};
use crate::job::Snapshot;

/// `Retry-After` where there is no room: in whole seconds, short, since room comes with any job's
/// end.
pub(crate) const WHEN_FULL: u64 = 5;

/// What is known of how long requests take.
#[derive(Debug, Default)]
pub(crate) struct Estimates {}

impl Estimates {
    /// The kind of a request of which nobody says what it is.
    pub(crate) fn kind_of(&self, method: &Method, path: &PathStart) -> Kind {
        self.kind(&name(method, path.as_str()))
    }

    /// The kind of this name.
    pub(crate) fn kind(&self, name: &str) -> Kind {
        Kind::new(name)
    }

    /// How much longer a job may take that has run for so long and is so far.
    pub(crate) fn left(&self, _: &Kind, ran: Duration, fraction: Option<f64>) -> Option<Duration> {
        let done = fraction.filter(|&fraction| fraction > 0.0)?;
        Some(ran.mul_f64((1.0 - done) / done))
    }

    /// After how many whole seconds it is worth asking again for an unfinished job.
    pub(crate) fn retry_after(&self, job: &Snapshot) -> u64 {
        back_off(job.created.elapsed())
    }
}
