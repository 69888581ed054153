//! The body of the request that the inner service gets.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::{
    limit::{BufferedBody, Charge, compact},
    protocol::{buffered_size_hint, poll_bytes, prefixed_size_hint},
};

/// The body of the request that the inner service gets.
///
/// A job's body has been read to its end, so the client may disconnect. The body of a request that
/// passes through is the client's own stream.
///
/// A layer or service that takes only one type of body does not compile inside this layer. For
/// axum's `middleware::from_fn` in the same `ServiceBuilder`, the compiler says:
///
/// ```text
/// the trait `Service<axum::http::Request<RequestBody<Body>>>` is not implemented for `FromFn<…>`
/// ```
///
/// Convert the body between them:
///
/// ```
/// use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response};
/// use tower::ServiceBuilder;
/// use tower_accepted::Jobs;
/// use tower_http::map_request_body::MapRequestBodyLayer;
///
/// async fn audit(request: Request, next: Next) -> Response {
///     next.run(request).await
/// }
///
/// let app: Router = Router::new().layer(
///     ServiceBuilder::new()
///         .layer(Jobs::new().layer())
///         .layer(MapRequestBodyLayer::new(axum::body::Body::new))
///         .layer(from_fn(audit)),
/// );
/// ```
///
/// A function on bare hyper gets *type mismatch in function arguments*. It must take
/// `Request<RequestBody<Incoming>>` instead of `Request<Incoming>`. The
/// [guide](crate::guide::mounting#layers-and-services-with-a-body-type-of-their-own) has both.
#[pin_project]
pub struct RequestBody<B> {
    /// The part that has been read.
    read: Option<Bytes>,
    /// The part that has not been read.
    #[pin]
    rest: Option<B>,
    trailers: Option<Box<HeaderMap>>,
}

impl<B> RequestBody<B> {
    #[inline(always)]
    pub(crate) fn streaming(body: B) -> Self {
        Self {
            read: None,
            rest: Some(body),
            trailers: None,
        }
    }

    /// Creates a body that has been read to its end. Returns its charge too.
    pub(crate) fn buffered(buffered: BufferedBody) -> (Self, Option<Charge>) {
        let mut body = Self {
            read: None,
            rest: None,
            trailers: None,
        };
        let charge = body.put_back(buffered);
        (body, charge)
    }

    /// Copies what has been read if it is a slice of a larger buffer, such as a connection's.
    pub(crate) fn unshare(&mut self) {
        if let Some(read) = &mut self.read {
            *read = compact(mem::take(read));
        }
    }

    /// Puts what has been read in front of the rest. Returns its charge.
    pub(crate) fn put_back(&mut self, buffered: BufferedBody) -> Option<Charge> {
        self.read = Some(buffered.bytes).filter(|bytes| !bytes.is_empty());
        self.trailers = buffered.trailers;
        buffered.charge
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(bytes) = this.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(rest) = this.rest.as_pin_mut() {
            return poll_bytes(rest, cx);
        }
        let trailers = this.trailers.take();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let Some(rest) = &self.rest else {
            return buffered_size_hint(read, self.trailers.is_some());
        };
        prefixed_size_hint(rest.size_hint(), read)
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("read", &self.read.as_ref().map(Bytes::len))
            .field("streaming", &self.rest.is_some())
            .finish_non_exhaustive()
    }
}
