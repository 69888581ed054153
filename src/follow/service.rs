use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use super::{FollowBody, FollowError, ResponseFuture, options::Options, start::Start};

/// A client behind [`FollowAcceptedLayer`](super::FollowAcceptedLayer).
#[derive(Debug, Clone)]
pub struct FollowAccepted<S> {
    inner: S,
    options: Arc<Options>,
}

impl<S> FollowAccepted<S> {
    /// A client that follows with every setting at its default.
    pub fn new(inner: S) -> Self {
        Self::with_options(inner, Arc::default())
    }

    pub(super) fn with_options(inner: S, options: Arc<Options>) -> Self {
        Self { inner, options }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for FollowAccepted<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Send,
{
    type Response = Response<FollowBody<R>>;
    type Error = FollowError;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FollowError>> {
        self.inner.poll_ready(cx).map_err(FollowError::service)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was ready is the one to be called.
        let clone = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, clone);
        let start = Start::new(&request, &self.options);
        ResponseFuture::new(service.call(request), service, start)
    }
}
