//! Rejects ambiguous requests before they become jobs or reach the upstream.

use http::{HeaderMap, Method, Request, Version, header, uri::Authority};

use crate::{error::GatewayError, headers};

/// Returns an error if another server could understand the request differently.
pub(crate) fn validate<B>(request: &Request<B>) -> Result<(), GatewayError> {
    if request.method() == Method::CONNECT {
        return Err(GatewayError::Connect);
    }
    // The upstream would receive a body with another coding as if it were plain.
    if !headers::is_at_most_chunked(request.headers()) {
        return Err(GatewayError::TransferCoding);
    }
    // Only CONNECT has a target without a path (RFC 9112 §3.2.3).
    let has_path = request.uri().path_and_query().is_some();
    if !has_path || !has_one_host(request.headers(), request.version()) {
        return Err(GatewayError::AmbiguousRequest);
    }
    Ok(())
}

/// Returns `true` if there is exactly one valid `Host`, as RFC 9112 §3.2 requires. Of two, the
/// upstream could use the other one.
fn has_one_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes());
            host.is_ok_and(|host| !host.as_str().contains('@'))
        }
        (None, _) => version == Version::HTTP_10,
        _ => false,
    }
}
