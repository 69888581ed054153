use http::{HeaderMap, Method, Request, Version, header, uri::Authority};

use crate::{fields, problem::Problem};

/// Refuses, before it can become a job, what no server behind this one should have to make sense of.
pub(crate) fn admit<B>(request: &Request<B>) -> Result<(), Problem> {
    if request.method() == Method::CONNECT {
        return Err(Problem::Tunnel);
    }
    // Taken for a plain body, one that is encoded otherwise would arrive as something else.
    if !fields::is_at_most_chunked(request.headers()) {
        return Err(Problem::TransferCoding);
    }
    // Only CONNECT has a target that is an authority alone (RFC 9112 §3.2.3).
    let has_path = request.uri().path_and_query().is_some();
    if !has_path || !has_one_host(request.headers(), request.version()) {
        return Err(Problem::Ambiguous);
    }
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
