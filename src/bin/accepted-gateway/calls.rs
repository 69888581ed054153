//! Limits the calls to the upstream, so that further jobs are queued.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::Service;

use crate::{body::Upload, hold::HoldBody};

/// Limits the calls in flight. A call ends with the body of its response.
///
/// Clones share the limit. tower's `ConcurrencyLimit` ends a call with the response's head, while
/// the connection still needs its file descriptor.
#[derive(Debug)]
pub(crate) struct LimitCalls<S> {
    inner: S,
    slots: PollSemaphore,
    /// The slot of the next call.
    slot: Option<OwnedSemaphorePermit>,
}

impl<S> LimitCalls<S> {
    pub(crate) fn new(inner: S, max: usize) -> Self {
        let slots = Semaphore::new(max.min(Semaphore::MAX_PERMITS));
        Self {
            inner,
            slots: PollSemaphore::new(Arc::new(slots)),
            slot: None,
        }
    }
}

impl<S: Clone> Clone for LimitCalls<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            slots: self.slots.clone(),
            slot: None,
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for LimitCalls<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
{
    type Response = Response<CallBody<B>>;
    type Error = S::Error;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.slot.is_none() {
            // The semaphore is never closed.
            self.slot = ready!(self.slots.poll_acquire(cx));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let upload = request.extensions().get::<Upload>();
        // A request that is still being read passes through. It gives the slot back at once, since
        // it lasts as long as its client likes.
        let is_read = upload.is_none_or(Upload::is_complete);
        CallFuture {
            slot: self.slot.take().filter(|_| is_read),
            future: self.inner.call(request),
        }
    }
}

/// A response body that holds the slot of its call.
type CallBody<B> = HoldBody<B, Option<OwnedSemaphorePermit>>;

/// The future of a call that holds a slot.
#[pin_project]
#[derive(Debug)]
pub(crate) struct CallFuture<F> {
    #[pin]
    future: F,
    slot: Option<OwnedSemaphorePermit>,
}

impl<F, B, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CallBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        let slot = this.slot.take();
        Poll::Ready(Ok(response.map(|body| HoldBody::new(body, slot))))
    }
}
