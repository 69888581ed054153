//! The progress of a call.

use std::sync::Arc;

/// The last progress that the inner service reported.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The fraction of the work that is done, from 0 to 1.
    pub fraction: Option<f64>,
    /// The current step.
    pub message: Option<Arc<str>>,
    /// The title that the call has set. It replaces the job's title; `None` leaves it.
    ///
    /// A [`Snapshot`](crate::Snapshot) has it as [`title`](crate::Snapshot::title), and not here.
    pub title: Option<Arc<str>>,
}
