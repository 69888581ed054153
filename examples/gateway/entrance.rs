//! What every request goes through before it can become a job.

use http::{HeaderMap, Method, Request, Version, header, uri::Authority};

use crate::problem::Problem;

/// Refuses what no server behind this one should have to make sense of, and takes the offer of
/// another protocol (RFC 9110 §7.8) out of the rest.
///
/// That offer is an option which a server may ignore; here it has to be, before the layer sees it:
/// the layer makes no jobs of requests to be upgraded, and some clients (Java's, curl with `--http2`)
/// offer HTTP/2 with every request.
pub(crate) fn admit<B>(request: &mut Request<B>) -> Result<(), Problem> {
    if request.method() == Method::CONNECT {
        return Err(Problem::Tunnel);
    }
    // Only CONNECT has a target that is an authority alone (RFC 9112 §3.2.3).
    let has_path = request.uri().path_and_query().is_some();
    if !has_path || !has_one_host(request.headers(), request.version()) {
        return Err(Problem::Ambiguous);
    }
    request.headers_mut().remove(header::UPGRADE);
    Ok(())
}

/// As RFC 9112 §3.2 asks of every server. Two of them, and the next server might go by the other.
fn has_one_host(fields: &HeaderMap, version: Version) -> bool {
    let mut hosts = fields.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes());
            host.is_ok_and(|host| !host.as_str().contains('@'))
        }
        (None, _) => version == Version::HTTP_10,
        _ => false,
    }
}
