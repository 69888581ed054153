//! A job that has been accepted and is about to run in this process.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use crate::{config::Outcomes, estimate::Kind, limit::JobPermit, registry::Registry, store::Store};

/// A job that has been accepted and is about to run in this process.
pub(crate) struct Job<St: Store> {
    pub(crate) registry: Arc<Registry<St>>,
    /// The time of the request, by the monotonic clock.
    pub(crate) created: Instant,
    /// The time of the request, by the system clock.
    pub(crate) created_at: SystemTime,
    /// The time from which the job's time limit counts: its request, or its claim by a worker.
    pub(crate) limited_from: Instant,
    /// Set if the request is a HEAD: its response has a length and no body.
    pub(crate) is_head: bool,
    pub(crate) is_owned: bool,
    /// The outcomes that the request's idempotency key keeps, if it has one.
    pub(crate) outcomes: Outcomes,
    pub(crate) kind: Kind,
    pub(crate) claim: St::Claim,
    /// Dropped last, after the claim: once the permit is released, the job has ended.
    pub(crate) _permit: Option<JobPermit>,
}
