//! The trait that a store implements.

use std::{
    error,
    future::Future,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, request, response};

use super::{
    new_job::NewJob,
    outbox::SharedOutbox,
    outcome::{Acceptance, End, Finished, Lookup, Report},
    result::{Reading, Writer},
    revisions::Revisions,
};
use crate::{
    job::{Filter, JobId, Page, Snapshot},
    limit::{Budget, Charge, Purpose},
};

/// A future of a [`Store`] that the layer polls in place first, and boxes only if it is pending.
///
/// A store that answers at once returns [`std::future::ready`]; any other boxes an `async` block.
pub trait StoreFuture<T>: Future<Output = T> + Send + Unpin + 'static {}

impl<T, F: Future<Output = T> + Send + Unpin + 'static> StoreFuture<T> for F {}

/// Keeps jobs.
///
/// All returned futures are cancel safe: a dropped operation takes effect completely or not at all.
///
/// The example `custom_store` is a complete store: begin with its `store.rs`. The module
/// `conformance`, behind the feature of that name, has the checks that every store must pass.
pub trait Store: Clone + Send + Sync + 'static {
    /// The error of the store itself. Clients then get 503, never 404.
    type Error: error::Error + Send + Sync + 'static;

    /// The request as the store keeps it before the call. A store whose jobs only this process can
    /// run uses `()`.
    type Record: Send + Sync + 'static;

    /// The revisions of a job, from the current one on. A slow reader skips revisions. The stream
    /// ends with the job.
    type Changes: Stream<Item = Snapshot> + Send + 'static;

    /// The right to end one job. If the job has not ended, dropping the claim ends it as
    /// [`Shutdown`](crate::ErrorCode::Shutdown), or hands it to another process.
    type Claim: Send + Sync + 'static;

    /// Writes the response of one job.
    type Writer: Writer;

    /// Returns the budget for the bytes that this store keeps in memory.
    ///
    /// [`JobsBuilder::max_bytes`](crate::JobsBuilder::max_bytes) sets its limit.
    fn budget(&self) -> &Budget;

    /// Returns the maximum size of a response that this store can keep, in bytes.
    ///
    /// Default: a fifth of the budget, so that a response and its head fit into the share of
    /// replays. A store that keeps no whole response in memory may return more.
    fn max_response(&self) -> usize {
        self.budget().limit() / 5
    }

    /// Returns `true` if results outlive this process, so that another one can serve them.
    ///
    /// Default: `false`. A [drain](crate::Jobs::drain) then waits until clients have fetched their
    /// results.
    fn is_durable(&self) -> bool {
        false
    }

    /// Takes bytes from the budget. Resolves to `None` if there is no room for them.
    ///
    /// A store may evict ended jobs to make room, or wait for room.
    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>>;

    /// Records a request whose body has been read.
    fn record(
        &self,
        head: &request::Parts,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Self::Record;

    /// Creates a job, in one step with its key and the limits on jobs.
    ///
    /// Once this resolves, [`get`](Self::get) finds the job. If the future is dropped, a claim that
    /// it would have returned is dropped too.
    fn accept(
        &self,
        job: &NewJob,
        record: Self::Record,
    ) -> impl StoreFuture<Result<Acceptance<Self::Claim>, Self::Error>>;

    /// Completes once the call of a claimed job may begin. Wakes the task that polled last.
    ///
    /// The layer polls this when the inner service is ready, right before it calls the service. A
    /// store that must know that a call has begun, even if the process dies in it, waits here until
    /// it has written that down. Any other store keeps this default, which is ready.
    fn poll_begin(&self, _claim: &Self::Claim, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Looks up a job.
    ///
    /// The future may be polled first outside of a runtime, and with a waker that does nothing.
    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, Self::Error>>;

    /// Follows a job. The stream is empty if there is no such job.
    fn changes(&self, id: JobId) -> Self::Changes;

    /// Lists jobs, the newest first.
    fn list(&self, filter: &Filter) -> impl Future<Output = Result<Page, Self::Error>> + Send;

    /// Stores what has changed while the call runs. Has no effect on an ended job.
    fn report(
        &self,
        claim: &Self::Claim,
        report: Report,
    ) -> impl StoreFuture<Result<(), Self::Error>>;

    /// Begins to write the response of a job.
    ///
    /// `head` is the head to replay, and `length` the number of bytes of the body, if it is known.
    /// The store may let clients read the response before the job ends.
    fn respond(
        &self,
        claim: &Self::Claim,
        head: response::Parts,
        length: Option<u64>,
    ) -> Self::Writer;

    /// Ends a job, in one step with its result and its key. The first end wins.
    fn finish(
        &self,
        claim: &Self::Claim,
        end: End<Self::Writer>,
    ) -> impl StoreFuture<Result<Finished, Self::Error>>;

    /// Reads the response of a job from byte `from` of its body on. Beyond the last byte, the body
    /// is empty.
    ///
    /// Waits until an unfinished job has a response. A store may publish a response as it is
    /// written, or only once the job has ended. Resolves to `None` if there is no such job, or if
    /// it ended without a response and has no part of one.
    ///
    /// The body belongs to one call of the inner service. It ends with an error after the last byte
    /// of a response that broke off, such as that of a process that died.
    fn read(
        &self,
        id: JobId,
        from: u64,
    ) -> impl Future<Output = Result<Option<Reading>, Self::Error>> + Send;

    /// Returns the outbox, if the store has one. It is the same each time.
    ///
    /// A store with an outbox records the [deliveries](super::Delivery::of_end) of each end. If the
    /// process dies in between, they must still be recorded: in one transaction, or before the
    /// job's request leaves the queue. Any other store keeps this default, and then no one is
    /// notified.
    fn outbox(&self) -> Option<SharedOutbox<Self::Error>> {
        None
    }

    /// Completes when the job has been ended by [`cancel`](Self::cancel), [`forget`](Self::forget)
    /// or another process. Wakes the task that polled last.
    fn poll_canceled(&self, claim: &Self::Claim, cx: &mut Context<'_>) -> Poll<()>;

    /// Ends a job as canceled unless it has ended, and returns it as it is then.
    ///
    /// Returns `None`, and changes nothing, if the job's revision is not in `revisions`. The check
    /// and the end are one step.
    fn cancel(
        &self,
        id: JobId,
        revisions: &Revisions,
    ) -> impl Future<Output = Result<Option<Lookup>, Self::Error>> + Send;

    /// Cancels a job unless it has ended, and forgets it: it is unknown from then on. Returns the
    /// job as it was.
    ///
    /// Returns `None`, and changes nothing, if the job's revision is not in `revisions`. The check
    /// and the change are one step.
    fn forget(
        &self,
        id: JobId,
        revisions: &Revisions,
    ) -> impl Future<Output = Result<Option<Lookup>, Self::Error>> + Send;
}
