//! What of an inner response is kept, and what is added where it is handed out again.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
    response,
};

use crate::{config::Config, protocol::strip_hop_by_hop};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

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
    strip_hop_by_hop(headers);
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
