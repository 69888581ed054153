//! What of an inner response is kept, and what is added where it is handed out again.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{self, Entry},
    response,
};

use crate::config::Config;

/// Tells the status of the response that a monitor hands out (OData 4.01 §8.3.1).
pub(crate) const ASYNC_RESULT: HeaderName = HeaderName::from_static("asyncresult");

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Fields that are about one connection, besides those that `Connection` names (RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Takes out of a response's head what must not be kept.
///
/// `Content-Length` goes too: it is written again from the body that there is.
/// Cookies stay where only the one who submitted the job can get at them.
pub(crate) fn strip(head: &mut response::Parts, config: &Config, is_owned: bool) {
    let headers = &mut head.headers;
    headers.remove(header::CONTENT_LENGTH);
    if !config.replay_cookies && !is_owned {
        headers.remove(header::SET_COOKIE);
        headers.remove(CLEAR_SITE_DATA);
    }
    // Most have none, and to see that costs less than to look each of them up.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        strip_hop_by_hop(headers);
    }
}

pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Adds to a kept response's head what makes it safe as the answer to a GET that can be shared.
pub(crate) fn complete(headers: &mut HeaderMap, config: &Config, is_owned: bool) {
    let private = HeaderValue::from_static("private, no-store");
    match headers.entry(header::CACHE_CONTROL) {
        Entry::Occupied(mut entry) if is_owned => {
            entry.insert(private);
        }
        Entry::Occupied(_) => {}
        Entry::Vacant(entry) => {
            entry.insert(private);
        }
    }
    headers
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    if config.sandbox_results {
        headers.append(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox"),
        );
    }
}

/// Whether a response with this status has a length to tell (RFC 9110 §8.6).
pub(crate) fn has_length(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn what_is_about_the_connection_is_not_kept() {
        let (mut head, ()) = Response::builder()
            .header("connection", "close, X-Hop")
            .header("connection", "x-other")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("x-hop", "1")
            .header("x-other", "1")
            .header("content-length", "3")
            .header("trailer", "x-sum")
            .header("x-kept", "1")
            .body(())
            .expect("a response")
            .into_parts();
        strip(&mut head, &Config::default(), false);
        let left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept", "trailer"]);
    }
}
