//! What becomes of a message's header fields on the way through (RFC 9110 §7.6).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request, response,
};
use http_body::Body;

use crate::proxy::Peer;

/// Who this gateway is in `Via`, where a pseudonym may stand for a host that is nobody's business.
const PSEUDONYM: &str = "tower-accepted";

/// So many gateways in a row are taken for one that is its own upstream.
const MAX_HOPS: usize = 8;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields about one connection, or for whom is at its other end.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Makes a request's fields those that the upstream is to see.
///
/// `Host` stays as it came: the server makes the same links, and finds the same origin in them, as
/// without the gateway. It does not say where to connect.
pub(crate) fn inbound(head: &mut request::Parts, body: &impl Body) {
    let fields = &mut head.headers;
    let takes_trailers = lists(fields, &TE, "trailers");
    let has_body = fields.contains_key(CONTENT_LENGTH) || fields.contains_key(TRANSFER_ENCODING);
    strip_hop_by_hop(fields);
    // The body is being read, or has been: the client was told to go on.
    fields.remove(EXPECT);
    frame_request(fields, body, has_body);
    let mut connection = HeaderValue::from_static("close");
    if takes_trailers {
        connection = HeaderValue::from_static("close, te");
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    fields.insert(CONNECTION, connection);

    // A list to which each hop adds what it saw: the last entry is this gateway's word.
    if let Some(Peer(client)) = head.extensions.get() {
        append(fields, X_FORWARDED_FOR, &client.to_canonical().to_string());
    }
    // Not lists, so a client's own claim has no place; nor has one in a field that is not added to.
    fields.remove(FORWARDED);
    match fields.get(HOST).cloned() {
        Some(host) => fields.insert(X_FORWARDED_HOST, host),
        None => fields.remove(X_FORWARDED_HOST),
    };
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    append_via(fields, head.version);
    head.version = Version::HTTP_11;
}

/// Makes a response's fields those that the client is to see.
pub(crate) fn outbound(head: &mut response::Parts, method: &Method) {
    strip_hop_by_hop(&mut head.headers);
    // Written again from the body there is, so that the two cannot differ. Only the answer to a HEAD
    // tells a length that nothing follows to.
    let length = head.headers.remove(CONTENT_LENGTH).filter(is_length);
    if let (Some(length), &Method::HEAD) = (length, method) {
        head.headers.insert(CONTENT_LENGTH, length);
    }
    append_via(&mut head.headers, head.version);
    head.version = Version::HTTP_11;
}

/// Whether a request has been here so often that it runs in a circle.
pub(crate) fn is_loop(fields: &HeaderMap) -> bool {
    let lines = fields.get_all(VIA).iter().map(HeaderValue::as_bytes);
    let hops = lines.flat_map(|line| line.split(|&byte| byte == b','));
    let ours = hops.filter(|hop| hop.trim_ascii_end().ends_with(PSEUDONYM.as_bytes()));
    ours.count() >= MAX_HOPS
}

/// Whether a message's body needs no other decoding than the one that HTTP/1.1 demands of everyone
/// (RFC 9112 §7.1).
pub(crate) fn is_at_most_chunked(fields: &HeaderMap) -> bool {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(chunked) && codings.next().is_none()
}

/// Says how the body is sent: by its length where that is known, and then no trailers follow. A
/// request that came with a body, if an empty one, goes on with one, whatever the method.
fn frame_request(fields: &mut HeaderMap, body: &impl Body, has_body: bool) {
    fields.remove(CONTENT_LENGTH);
    if !has_body {
        return;
    }
    match body.size_hint().exact() {
        Some(length) => fields.insert(CONTENT_LENGTH, length.into()),
        None => fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
}

fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        fields.remove(name);
    }
}

/// Fields that a message does not mean the same without: a `Connection` that names them is an attempt
/// to have them taken away (RFC 9110 §7.6.1 forbids it to the sender).
fn is_end_to_end(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == HOST
        || *name == AUTHORIZATION
        || text.starts_with("content-")
        || text.starts_with("x-forwarded-")
}

fn append_via(fields: &mut HeaderMap, received: Version) {
    let version = match received {
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    append(fields, VIA, &format!("{version} {PSEUDONYM}"));
}

/// Adds an entry to a list, on its one line: not everything that reads these looks at a second.
fn append(fields: &mut HeaderMap, name: HeaderName, entry: &str) {
    let lines = fields.get_all(&name).iter().map(HeaderValue::as_bytes);
    let mut list: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    list.push(entry.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        fields.insert(name, list);
    }
}

fn lists(fields: &HeaderMap, name: &HeaderName, entry: &str) -> bool {
    let lines = fields.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut entries = lines.flat_map(|line| line.split(|&byte| byte == b','));
    entries.any(|one| one.trim_ascii().eq_ignore_ascii_case(entry.as_bytes()))
}

fn is_length(value: &HeaderValue) -> bool {
    // Digits alone: a number's parser would take a sign too.
    value.as_bytes().iter().all(u8::is_ascii_digit)
        && value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
}
