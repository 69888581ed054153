//! The response future of the following layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_service::Service;

use super::{
    FollowBody, FollowError, Stopped, body::FollowResponse, follower::Follower,
    original::OriginalRequest, peeked::PeekedBody, streamed::resumable,
};
use crate::protocol::BoxError;

/// The response future of [`FollowAccepted`](super::FollowAccepted).
///
/// # Cancel safety
///
/// If the future is dropped before the 202 arrives, it drops the original request. If it is dropped
/// later, the job continues, unless
/// [`cancel_on_drop`](super::FollowAcceptedLayer::cancel_on_drop) is set.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    #[pin]
    state: FollowState<S::Future, S, BoxFollow<R>>,
}

#[pin_project(project = FollowStateProj)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost every response an allocation"
)]
enum FollowState<F, S, G> {
    /// The original request is being sent.
    Calling {
        #[pin]
        future: F,
        /// Taken when the response arrives.
        follow_up: Option<(OriginalRequest, S)>,
    },
    /// A 202 is being followed.
    Following(G),
}

type BoxFollow<R> = Pin<Box<dyn Future<Output = Result<FollowResponse<R>, Box<Stopped>>> + Send>>;

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    pub(super) fn new(future: S::Future, service: S, original: OriginalRequest) -> Self {
        Self {
            state: FollowState::Calling {
                future,
                follow_up: Some((original, service)),
            },
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
    R::Error: Into<BoxError> + Send,
{
    type Output = Result<Response<FollowBody<R>>, FollowError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let follower = match state.as_mut().project() {
                FollowStateProj::Calling { future, follow_up } => {
                    let response = ready!(future.poll(cx)).map_err(FollowError::Service)?;
                    let response = response.map(PeekedBody::new);
                    let Some((original, service)) = follow_up.take() else {
                        panic!("`ResponseFuture` polled after completion");
                    };
                    if !original.is_followed(response.status()) {
                        return Poll::Ready(Ok(resumable(original, service, response)));
                    }
                    match Follower::new(original, service, response) {
                        Ok(follower) => follower,
                        Err(accepted) => return Poll::Ready(Ok(accepted.map(FollowBody::plain))),
                    }
                }
                FollowStateProj::Following(future) => {
                    return future.as_mut().poll(cx).map_err(FollowError::Stopped);
                }
            };
            state.set(FollowState::Following(Box::pin(follower.follow())));
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
            FollowState::Calling { .. } => "ResponseFuture::Calling",
            FollowState::Following(_) => "ResponseFuture::Following",
        })
    }
}
