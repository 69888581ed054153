//! The health resources for orchestrators and load balancers: `/healthz` and `/readyz`.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;

/// Answers requests for `/healthz` and `/readyz` under a path prefix.
#[derive(Debug, Clone)]
pub(crate) struct HealthCheck {
    prefix: String,
    draining: CancellationToken,
}

impl HealthCheck {
    /// Creates the resources under `prefix`, which is empty for the root. `/readyz` fails once
    /// `draining` is canceled.
    pub(crate) fn new(prefix: &str, draining: CancellationToken) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix, draining }
    }

    /// Returns the response if the request's path is a health resource.
    pub(crate) fn respond<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let (status, text) = match request.uri().path().strip_prefix(&self.prefix)? {
            "/healthz" => (StatusCode::OK, "ok\n"),
            "/readyz" if self.draining.is_cancelled() => {
                (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/readyz" => (StatusCode::OK, "ready\n"),
            _ => return None,
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            response = Response::new(Full::from("only GET and HEAD are allowed\n"));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allow);
        }
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}
