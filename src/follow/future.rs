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

use super::{FollowBody, FollowError, chase::Start};

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
    state: State<S, S::Future, Followed<R, S::Error>>,
}

type Followed<R, E> = Pin<Box<dyn Future<Output = Result<Response<FollowBody<R>>, E>> + Send>>;

#[pin_project(project = StateProj)]
enum State<S, F, G> {
    /// The original request is under way. What any response but a 202 needs is not boxed.
    Calling {
        #[pin]
        future: F,
        service: Option<S>,
        start: Option<Start>,
    },
    Following(G),
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
    R: Body,
{
    pub(super) fn new(future: S::Future, service: S, start: Start) -> Self {
        Self {
            state: State::Calling {
                future,
                service: Some(service),
                start: Some(start),
            },
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: From<FollowError> + Into<BoxError> + Send + 'static,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError> + Send,
{
    type Output = Result<Response<FollowBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let following = match state.as_mut().project() {
                StateProj::Calling {
                    future,
                    service,
                    start,
                } => {
                    let response = ready!(future.poll(cx))?.map(FollowBody::new);
                    let (Some(start), Some(service)) = (start.take(), service.take()) else {
                        panic!("polled after its response");
                    };
                    if !start.concerns(response.status()) {
                        return Poll::Ready(Ok(response));
                    }
                    match start.look(response, service) {
                        Ok(chase) => chase.follow(),
                        Err(response) => return Poll::Ready(Ok(*response)),
                    }
                }
                StateProj::Following(future) => return future.as_mut().poll(cx),
            };
            state.set(State::Following(Box::pin(following)));
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
            State::Calling { .. } => "ResponseFuture::Calling",
            State::Following(_) => "ResponseFuture::Following",
        })
    }
}
