//! Rewrites the headers of forwarded requests and responses (RFC 9110 §7.6).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, ORIGIN,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response,
};
use http_body::Body;

use crate::{forwarded::ForwardedTrust, list, peer::Peer};

/// This gateway's name in `Via`. A pseudonym does not reveal the host.
const PSEUDONYM: &str = "tower-accepted";

/// The number of gateways in `Via` at which the gateway takes itself for its own upstream.
const MAX_HOPS: usize = 8;

/// The headers that apply to one connection, or to the proxy at its other end.
pub(crate) const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Rewrites a request's headers for the upstream.
///
/// `Host` stays: the server creates the same links and checks the same origin as without the
/// gateway. The connection goes to the upstream's own address. `owner` is the header that names
/// owners, which a client cannot have removed.
pub(crate) fn rewrite_request(
    head: &mut request::Parts,
    body: &impl Body,
    forwarded: ForwardedTrust,
    owner: Option<&HeaderName>,
) {
    let headers = &mut head.headers;
    let accepts_trailers = list::contains(headers, &TE, "trailers");
    let has_body = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    strip_hop_by_hop(headers, owner);
    // hyper sends the client 100 (Continue) as soon as the gateway reads the body.
    headers.remove(EXPECT);
    frame_request(headers, body, has_body);
    let mut connection = HeaderValue::from_static("close");
    if accepts_trailers {
        connection = HeaderValue::from_static("close, te");
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(CONNECTION, connection);

    forwarded.rewrite(headers, head.extensions.get::<Peer>().copied());
    append_via(headers, head.version);
    head.version = Version::HTTP_11;
}

/// Rewrites a response's headers for the client.
pub(crate) fn rewrite_response(head: &mut response::Parts, method: &Method) {
    strip_hop_by_hop(&mut head.headers, None);
    // hyper derives the length from the body, so that both agree. Only a response to HEAD states
    // the length of a body that it does not have.
    let length = head.headers.remove(CONTENT_LENGTH).filter(is_length);
    if let (Some(length), &Method::HEAD) = (length, method) {
        head.headers.insert(CONTENT_LENGTH, length);
    }
    append_via(&mut head.headers, head.version);
    head.version = Version::HTTP_11;
}

/// Returns `true` if a request has passed through this gateway [`MAX_HOPS`] times.
pub(crate) fn is_loop(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(VIA).iter().map(HeaderValue::as_bytes);
    let hops = lines.flat_map(|line| line.split(|&byte| byte == b','));
    let ours = hops.filter(|hop| hop.trim_ascii_end().ends_with(PSEUDONYM.as_bytes()));
    ours.count() >= MAX_HOPS
}

/// Returns `true` if a message has no transfer coding, or only chunked (RFC 9112 §7.1).
pub(crate) fn is_at_most_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(chunked) && codings.next().is_none()
}

/// Frames the body: by its length if that is known, which rules out trailers, otherwise chunked.
///
/// A request that came with a body, even an empty one, keeps one, whatever its method.
fn frame_request(headers: &mut HeaderMap, body: &impl Body, has_body: bool) {
    headers.remove(CONTENT_LENGTH);
    if !has_body {
        return;
    }
    match body.size_hint().exact() {
        Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
        None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
}

fn strip_hop_by_hop(headers: &mut HeaderMap, owner: Option<&HeaderName>) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| owner != Some(name) && !is_end_to_end(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Returns `true` if a message changes its meaning without this header.
///
/// RFC 9110 §7.6.1 forbids senders to name such a header in `Connection`: it is an attempt to have
/// the gateway remove it.
fn is_end_to_end(name: &HeaderName) -> bool {
    let text = name.as_str();
    [HOST, AUTHORIZATION, COOKIE, SET_COOKIE, ORIGIN].contains(name)
        || text == "idempotency-key"
        || text.starts_with("sec-fetch-")
        || text.starts_with("content-")
        || text == "forwarded"
        || text.starts_with("x-forwarded-")
}

fn append_via(headers: &mut HeaderMap, received: Version) {
    let version = match received {
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    list::append(headers, VIA, &format!("{version} {PSEUDONYM}"));
}

fn is_length(value: &HeaderValue) -> bool {
    // Digits only: `u64::from_str` also accepts a plus sign.
    value.as_bytes().iter().all(u8::is_ascii_digit)
        && value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
}
