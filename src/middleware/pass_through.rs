//! A call that passes through.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use pin_project::pin_project;
use tower_service::Service;

/// A call that passes through.
///
/// A service that is ready is called at once, inside this layer's own `call`, as it would be
/// without the layer. The request then moves only into the service's future.
#[pin_project(project = PassThroughProj, project_replace = PassThroughOwned)]
pub(super) enum PassThrough<S: Service<Rq>, Rq> {
    /// Boxed, so that a call which starts at once is not moved with room for a request.
    Waiting(S, Box<Rq>),
    Called(#[pin] S::Future),
    /// The service failed before it was called.
    Failed(S::Error),
    Done,
}

impl<S: Service<Rq>, Rq> PassThrough<S, Rq> {
    #[inline(always)]
    pub(super) fn new(mut inner: S, request: Rq) -> Self {
        // If the service is not ready, the future polls it again with the task's waker.
        match inner.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called(inner.call(request)),
            Poll::Ready(Err(error)) => Self::Failed(error),
            Poll::Pending => Self::Waiting(inner, Box::new(request)),
        }
    }
}

impl<S: Service<Rq>, Rq> Future for PassThrough<S, Rq> {
    type Output = Result<S::Response, S::Error>;

    /// # Panics
    ///
    /// Panics if polled after completion.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                PassThroughProj::Called(future) => return future.poll(cx),
                PassThroughProj::Waiting(inner, _) => ready!(inner.poll_ready(cx))?,
                PassThroughProj::Failed(_) | PassThroughProj::Done => {}
            }
            match self.as_mut().project_replace(Self::Done) {
                PassThroughOwned::Waiting(mut inner, request) => {
                    let future = inner.call(*request);
                    self.set(Self::Called(future));
                }
                PassThroughOwned::Failed(error) => return Poll::Ready(Err(error)),
                PassThroughOwned::Called(_) | PassThroughOwned::Done => {
                    panic!("`ResponseFuture` polled after completion")
                }
            }
        }
    }
}
