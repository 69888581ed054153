//! The bounds on a service that the layer can wrap.

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::request_body::RequestBody;
use crate::protocol::BoxError;

/// An alias for a service that the layer can wrap, for requests with a body of type `B`.
pub(crate) trait InnerService<B>:
    Service<
        Request<RequestBody<B>>,
        Response = Response<Self::Body>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Send
    + 'static
{
    /// The body of its responses.
    type Body: Body<Error: Into<BoxError>> + Send + 'static;
}

impl<S, B, R> InnerService<B> for S
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Body = R;
}
