//! The trait of stores whose jobs any process may run.

use std::{future::Future, sync::Arc, time::SystemTime};

use http::request::Parts;
use tokio::time::Instant;

use super::interface::Store;
use crate::{
    config::Outcomes,
    estimate::Kind,
    job::{CallbackTarget, JobId},
    limit::BufferedBody,
};

/// A store whose jobs wait for any process that has the service to run them.
///
/// [`Jobs::worker`](crate::Jobs::worker) takes a request in two steps, so that it can fetch many at a
/// time and claim them concurrently.
///
/// The queue delivers a request until its job has ended, to one process at a time:
///
/// - A call that ends as [`Shutdown`](crate::ErrorCode::Shutdown) hands its request back if it
///   never started, or if the request may run again. [`finish`](Store::finish) then resolves to
///   [`HandedBack`](super::Finished::HandedBack).
/// - A job that was accepted with [`run_here`](super::NewJob::run_here) is delivered only after its
///   claim has been dropped. A store may give every job to the process that accepts it.
pub trait Queue: Store {
    /// A request that was delivered to this process and is not claimed yet. If the ticket is
    /// dropped, the request is delivered again later, to any process.
    type Ticket: Send + 'static;

    /// Waits a few seconds for requests, and returns at most `max`.
    ///
    /// # Errors
    ///
    /// The worker logs the error and tries again after a second.
    fn next(
        &self,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Self::Ticket>, Self::Error>> + Send;

    /// Claims a request.
    ///
    /// Resolves to `None` if the request must not run: its job has ended, another process has it,
    /// or it is too late to run it again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may have been claimed. It is then treated like one
    /// whose process died.
    fn claim(
        &self,
        ticket: Self::Ticket,
    ) -> impl Future<Output = Result<Option<Work<Self::Claim>>, Self::Error>> + Send;
}

/// A request that this process has claimed and must run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Work<C> {
    /// The right to end the job.
    pub claim: C,
    /// The job's id.
    pub id: JobId,
    /// The time of the request, by this process's monotonic clock.
    pub created: Instant,
    /// The time of the request, by the system clock.
    pub created_at: SystemTime,
    /// The kind of the request.
    pub kind: Kind,
    /// Set if the job has an owner.
    pub is_owned: bool,
    /// The receivers to notify, from [`NewJob`](super::NewJob). Those that want it are notified
    /// while the job runs.
    pub callbacks: Option<Arc<[CallbackTarget]>>,
    /// The outcomes that the request's idempotency key keeps, from [`NewKey`](super::NewKey).
    pub outcomes: Outcomes,
    /// The number of this call among all calls for the job, from 1.
    pub attempt: u32,
    /// The request's head.
    pub head: Parts,
    /// The request's body.
    pub body: BufferedBody,
}

impl<C> Work<C> {
    /// Creates the first call for a job without an owner or a key, requested now.
    pub fn new(claim: C, id: JobId, head: Parts, body: BufferedBody) -> Self {
        Self {
            claim,
            id,
            created: Instant::now(),
            created_at: SystemTime::now(),
            kind: Kind::new(""),
            is_owned: false,
            callbacks: None,
            outcomes: Outcomes::All,
            attempt: 1,
            head,
            body,
        }
    }
}
