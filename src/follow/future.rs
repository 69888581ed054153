use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower::{BoxError, Service};

use super::{FollowBody, FollowError, body::FollowResponse, chase::Chase, start::Start};

/// The response of a [`FollowAccepted`](super::FollowAccepted).
///
/// # Cancel safety
///
/// Dropped before the 202, it takes the original request along. Dropped after, the job goes on, or is
/// canceled where [`cancel_on_drop`](super::FollowAcceptedLayer::cancel_on_drop) says so.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    #[pin]
    state: State<S::Future, Following<R>>,
    /// What it takes to follow a 202, until there is a response. It is not boxed, so that any other
    /// response costs no allocation.
    follow_up: Option<(Start, S)>,
}

#[pin_project(project = StateProj)]
enum State<F, G> {
    /// The original request is under way.
    Calling(#[pin] F),
    Following(G),
}

type Following<R> = Pin<Box<dyn Future<Output = Result<FollowResponse<R>, FollowError>> + Send>>;

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    pub(super) fn new(future: S::Future, service: S, start: Start) -> Self {
        Self {
            state: State::Calling(future),
            follow_up: Some((start, service)),
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Send,
{
    type Output = Result<Response<FollowBody<R>>, FollowError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let following = match this.state.as_mut().project() {
                StateProj::Calling(future) => {
                    let response = ready!(future.poll(cx)).map_err(FollowError::service)?;
                    let response = response.map(FollowBody::new);
                    let Some((start, service)) = this.follow_up.take() else {
                        panic!("polled after its response");
                    };
                    if !start.concerns(response.status()) {
                        return Poll::Ready(Ok(response));
                    }
                    match Chase::new(start, service, response) {
                        Ok(chase) => chase.follow(),
                        Err(accepted) => return Poll::Ready(Ok(*accepted)),
                    }
                }
                StateProj::Following(future) => return future.as_mut().poll(cx),
            };
            this.state.set(State::Following(Box::pin(following)));
        }
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Calling(_) => "ResponseFuture::Calling",
            State::Following(_) => "ResponseFuture::Following",
        })
    }
}
