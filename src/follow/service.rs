//! The service of the following layer.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    FollowBody, FollowError, ResponseFuture, options::FollowOptions, original::OriginalRequest,
};
use crate::protocol::BoxError;

/// A client that follows each 202 to the response of its job.
///
/// It is ready when the inner service is. The [module documentation](super) explains the behavior.
#[derive(Debug, Clone)]
pub struct FollowAccepted<S> {
    inner: S,
    options: Arc<FollowOptions>,
}

impl<S> FollowAccepted<S> {
    /// Creates a client with the default settings.
    pub fn new(inner: S) -> Self {
        Self::with_options(inner, Arc::default())
    }

    pub(super) fn with_options(inner: S, options: Arc<FollowOptions>) -> Self {
        Self { inner, options }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
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
    R::Error: Into<BoxError> + Send,
{
    type Response = Response<FollowBody<R>>;
    type Error = FollowError<S::Error>;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(FollowError::Service)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // A clone may not be ready, so call the service that was polled.
        let clone = self.inner.clone();
        let mut service = mem::replace(&mut self.inner, clone);
        let original = OriginalRequest::new(&request, &self.options);
        ResponseFuture::new(service.call(request), service, original)
    }
}
