//! The mark of a response that is no outcome of its request.

/// Marks a response whose request has not reached the service that would act on it.
///
/// Insert it into the extensions of a response if nothing has received the request, for example if
/// a proxy cannot connect to its upstream. Such a response is not an outcome: it frees the
/// request's `Idempotency-Key`, so that a repeat calls the inner service again.
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_accepted::Unreached;
///
/// let mut response = Response::new("the upstream refused the connection");
/// *response.status_mut() = StatusCode::BAD_GATEWAY;
/// response.extensions_mut().insert(Unreached);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unreached;
