use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// What the gateway itself has to say against a request, as a problem document (RFC 9457).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// What the request is for cannot be told for certain: another server might see it otherwise.
    Ambiguous,
    /// A tunnel is asked for.
    Tunnel,
    /// The body is encoded for the way in a manner that is not known here.
    TransferCoding,
    /// The upstream cannot be reached, or does not answer in HTTP.
    NoAnswer,
    /// The upstream is this gateway.
    Loop,
    /// The gateway is shutting down.
    Draining,
}

impl Problem {
    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let (status, detail) = match self {
            Self::Ambiguous => (
                StatusCode::BAD_REQUEST,
                "A request names exactly one valid Host, and a path.",
            ),
            Self::Tunnel => (
                StatusCode::NOT_IMPLEMENTED,
                "This gateway makes no tunnels.",
            ),
            Self::TransferCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "The only transfer coding known here is chunked.",
            ),
            Self::NoAnswer => (
                StatusCode::BAD_GATEWAY,
                "The server behind this gateway could not be reached, or gave no answer.",
            ),
            Self::Loop => (
                StatusCode::LOOP_DETECTED,
                "The request has come back to this gateway again and again.",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway is shutting down; of it only the jobs' monitor still answers.",
            ),
        };
        let document = serde_json::json!({
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        let mut response = Response::new(Full::from(document.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            // Whatever follows on the connection may not be what it looks like.
            Self::Ambiguous | Self::Tunnel | Self::TransferCoding => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Draining => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::NoAnswer | Self::Loop => {}
        }
        response
    }
}
