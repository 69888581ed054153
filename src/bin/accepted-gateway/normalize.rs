//! Rejects ambiguous requests, and brings the others into one form.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Authority,
};

use crate::{error::GatewayError, headers};

/// Brings the target into origin form, so that `Host` alone names the host. `owner` is the header
/// that names owners.
///
/// # Errors
///
/// Returns an error if another server could understand the request differently.
pub(crate) fn normalize<B>(
    request: &mut Request<B>,
    owner: Option<&HeaderName>,
) -> Result<(), GatewayError> {
    if request.method() == Method::CONNECT {
        return Err(GatewayError::Connect);
    }
    // The upstream would receive a body with another coding as if it were plain.
    if !headers::is_at_most_chunked(request.headers()) {
        return Err(GatewayError::TransferCoding);
    }
    // Only CONNECT has a target without a path (RFC 9112 §3.2.3).
    let has_path = request.uri().path_and_query().is_some();
    // Only OPTIONS has the target `*` (RFC 9112 §3.2.4).
    let is_about_server = request.uri().path() == "*" && request.method() != Method::OPTIONS;
    if is_about_server || !has_path || !has_one_host(request.headers(), request.version()) {
        return Err(GatewayError::AmbiguousRequest);
    }
    // Of two owners, the proxy that set one cannot have meant both.
    if owner.is_some_and(|name| request.headers().get_all(name).iter().count() > 1) {
        return Err(GatewayError::AmbiguousOwner);
    }
    adopt_authority(request)
}

/// Replaces `Host` by the authority of a target in absolute form, as RFC 9112 §3.2.2 requires.
///
/// Without that, the upstream would choose a virtual host by one of them, and a proxy in front of
/// the gateway may have checked the other one.
fn adopt_authority<B>(request: &mut Request<B>) -> Result<(), GatewayError> {
    let Some(authority) = request.uri().authority() else {
        return Ok(());
    };
    let is_http = matches!(request.uri().scheme_str(), Some("http" | "https"));
    if !is_http || !is_host(authority) {
        return Err(GatewayError::AmbiguousRequest);
    }
    let host = HeaderValue::from_str(authority.as_str());
    let host = host.map_err(|_| GatewayError::AmbiguousRequest)?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// Returns `true` if there is exactly one valid `Host`, as RFC 9112 §3.2 requires. Of two, the
/// upstream could use the other one.
fn has_one_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).is_ok_and(|host| is_host(&host)),
        (None, _) => version == Version::HTTP_10,
        _ => false,
    }
}

fn is_host(authority: &Authority) -> bool {
    !authority.host().is_empty() && !authority.as_str().contains('@')
}
