use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use pin_project::pin_project;
use tower::Service;

/// A call that passes through.
///
/// Where the service is ready it is called right away, in the call of this layer, as it would be
/// without it: the request is then moved no further than into the service's own future.
#[pin_project(project = PassingProj)]
pub(crate) enum Passing<S: Service<Rq>, Rq> {
    /// Boxed, so that who is called at once is not moved about with room for a request.
    Waiting(S, Option<Box<Rq>>),
    Called(#[pin] S::Future),
    /// The service broke before it was called.
    Broken(Option<S::Error>),
}

impl<S: Service<Rq>, Rq> Passing<S, Rq> {
    #[inline(always)]
    pub(crate) fn new(mut inner: S, request: Rq) -> Self {
        // Nobody is to be woken here: where it is not ready, it is asked again by the task.
        match inner.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called(inner.call(request)),
            Poll::Ready(Err(error)) => Self::Broken(Some(error)),
            Poll::Pending => Self::Waiting(inner, Some(Box::new(request))),
        }
    }
}

impl<S: Service<Rq>, Rq> Future for Passing<S, Rq> {
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                PassingProj::Waiting(inner, request) => {
                    ready!(inner.poll_ready(cx))?;
                    inner.call(*request.take().expect("a call is called once"))
                }
                PassingProj::Called(future) => return future.poll(cx),
                PassingProj::Broken(error) => {
                    let error = error.take();
                    return Poll::Ready(Err(error.expect("polled after its response")));
                }
            };
            self.set(Self::Called(future));
        }
    }
}
