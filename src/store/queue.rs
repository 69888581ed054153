use std::{future::Future, time::SystemTime};

use http::request::Parts;
use tokio::time::Instant;

use super::Store;
use crate::{estimate::Kind, job::JobId, limit::Collected};

/// A store whose jobs wait for any process that has the service to run them.
///
/// [`Jobs::worker`](crate::Jobs::worker) drives it. A request is taken in two steps, so that many can be
/// fetched at a time and claimed side by side.
pub trait Queue: Store {
    /// A request that was handed to this process, and is not claimed yet. Dropped, it is handed to
    /// some process later.
    type Ticket: Send + 'static;

    /// Waits a few seconds for requests, and takes up to so many.
    fn next(
        &self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Self::Ticket>, Self::Error>> + Send;

    /// Claims a request. `None` where it is not to be run, now or ever: its job has ended, or somebody
    /// else has it, or it is too late to run it again. It waits for the store to tell, however long that takes:
    /// whoever drops it before may have claimed the request, and is then one more process that is gone.
    fn claim(
        &self,
        ticket: Self::Ticket,
    ) -> impl Future<Output = Result<Option<Work<Self::Claim>>, Self::Error>> + Send;
}

/// A request that this process has claimed, and is to run.
#[derive(Debug)]
pub struct Work<C> {
    /// The right to end its job.
    pub claim: C,
    /// The job's name.
    pub id: JobId,
    /// When the request was taken, by this process's clock.
    pub created: Instant,
    /// The same by the clock on the wall.
    pub created_at: SystemTime,
    /// What kind of request it is.
    pub kind: Kind,
    /// Whether its job has an owner.
    pub is_owned: bool,
    /// The request's head.
    pub head: Parts,
    /// Its body.
    pub body: Collected,
}
