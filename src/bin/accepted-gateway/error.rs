//! The gateway's own error responses, as problem documents (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use tower_accepted::Unreached;

/// An error that the gateway itself reports to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayError {
    /// Another server could understand the request differently.
    AmbiguousRequest,
    /// The request names more than one owner.
    AmbiguousOwner,
    /// The method is CONNECT.
    Connect,
    /// The request has a transfer coding other than chunked.
    TransferCoding,
    /// The client stopped sending the request's body.
    RequestStalled,
    /// No connection to the upstream can be opened, so it has not received the request.
    UpstreamUnreachable,
    /// The upstream has not responded, or its response is not valid HTTP.
    UpstreamUnavailable,
    /// The upstream is this gateway.
    Loop,
    /// The gateway is shutting down.
    ShuttingDown,
}

impl GatewayError {
    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let (status, detail) = match self {
            Self::AmbiguousRequest => (
                StatusCode::BAD_REQUEST,
                "A request needs exactly one valid Host, and a path. Its target names no user.",
            ),
            Self::AmbiguousOwner => (
                StatusCode::BAD_REQUEST,
                "The header that names the owner of a job occurs more than once.",
            ),
            Self::Connect => (
                StatusCode::NOT_IMPLEMENTED,
                "This gateway does not support CONNECT.",
            ),
            Self::TransferCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "This gateway supports no transfer coding except chunked.",
            ),
            Self::RequestStalled => (
                StatusCode::REQUEST_TIMEOUT,
                "The request's body did not arrive in time.",
            ),
            Self::UpstreamUnreachable | Self::UpstreamUnavailable => (
                StatusCode::BAD_GATEWAY,
                "The server behind this gateway is unreachable or sent no valid response.",
            ),
            Self::Loop => (
                StatusCode::LOOP_DETECTED,
                "The request passed through this gateway too many times.",
            ),
            Self::ShuttingDown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway is shutting down. Only the status monitor still answers.",
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
            // The rest of the connection may not be framed as it seems.
            Self::AmbiguousRequest
            | Self::Connect
            | Self::TransferCoding
            | Self::RequestStalled => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::ShuttingDown => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::AmbiguousOwner
            | Self::UpstreamUnreachable
            | Self::UpstreamUnavailable
            | Self::Loop => {}
        }
        if !matches!(self, Self::UpstreamUnavailable | Self::RequestStalled) {
            response.extensions_mut().insert(Unreached);
        }
        response
    }
}
