//! Idempotency keys, and fingerprints of requests.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use serde::{Deserialize, Serialize};

use super::{digest::Digest, owner::Owner};
use crate::protocol::IDEMPOTENCY_KEY;

/// The maximum length of a key in bytes.
const MAX_KEY_BYTES: usize = 255;

/// An idempotency key, within the keys of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

/// The digest of a request, which distinguishes it from other requests with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Digest);

/// A field value that is not an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidKey;

impl Key {
    /// Creates the key of this text, within the keys of `owner`.
    pub fn new(text: &[u8], owner: Option<&Owner>) -> Self {
        let owner = owner.map_or(&b""[..], |owner| owner.as_bytes());
        Self(Digest::new([owner, text]))
    }

    /// Restores a key from [`as_bytes`](Self::as_bytes).
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// Returns the digest of the key and its owner.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads the key from a request's fields: a structured-field string (RFC 9651 §3.3.3), or a
    /// bare value, as most clients send it. Both spellings of a key are equal.
    pub(crate) fn from_headers(
        headers: &HeaderMap,
        owner: Option<&Owner>,
    ) -> Result<Option<Self>, InvalidKey> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = value.as_bytes().trim_ascii();
        if values.next().is_some() || !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(InvalidKey);
        }
        let key = match text.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted).ok_or(InvalidKey)?,
            None => text.to_vec(),
        };
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(InvalidKey);
        }
        Ok(Some(Self::new(&key, owner)))
    }
}

impl fmt::Display for Key {
    /// Writes the digest in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Fingerprint {
    /// Computes the fingerprint of a request from its method, URI, body and the given fields.
    pub fn new(head: &Parts, body: &[u8], fields: &[HeaderName]) -> Self {
        Self::with_content_type(head, None, body, fields)
    }

    /// Computes the same fingerprint, with another value for the field `Content-Type` if it is
    /// covered.
    pub(crate) fn with_content_type(
        head: &Parts,
        content_type: Option<&str>,
        body: &[u8],
        fields: &[HeaderName],
    ) -> Self {
        let uri = head.uri.path_and_query().map_or("", |uri| uri.as_str());
        let method = head.method.as_str();
        let fields = fields.iter().map(|name| {
            if let Some(content_type) = content_type
                && name == header::CONTENT_TYPE
            {
                return Digest::new([content_type.as_bytes()]);
            }
            let values = head.headers.get_all(name).iter();
            Digest::new(values.map(HeaderValue::as_bytes))
        });
        let fields: Vec<Digest> = fields.collect();
        let fields = fields.iter().map(|field| &field.as_bytes()[..]);
        let parts = [method.as_bytes(), uri.as_bytes(), body].into_iter();
        Self(Digest::new(parts.chain(fields)))
    }

    /// Computes the fingerprint of a request that these bytes describe.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Digest::new([bytes]))
    }

    /// Restores a fingerprint from [`as_bytes`](Self::as_bytes).
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// Returns the digest.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// Returns the text of a quoted string, given what follows its first quote. Parameters may follow
/// it.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match *bytes.next()? {
            b'"' => break,
            b'\\' => match *bytes.next()? {
                escaped @ (b'"' | b'\\') => text.push(escaped),
                _ => return None,
            },
            byte => text.push(byte),
        }
    }
    let rest = bytes.as_slice();
    (rest.is_empty() || rest.starts_with(b";")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> Result<Option<Key>, InvalidKey> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a field value");
            headers.append(IDEMPOTENCY_KEY, value);
        }
        Key::from_headers(&headers, None)
    }

    #[test]
    fn quoted_and_bare_keys_are_equal() {
        for text in [
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            "order:2026-11-23/7",
            "a key with spaces",
            "!#$%&'*+-.^_`|~,;=",
        ] {
            let quoted = format!("\"{text}\"");
            let bare = key(&[text]).expect("a key");
            assert!(bare.is_some());
            assert_eq!(key(&[&quoted]).expect("a key"), bare, "{text}");
            let with_parameters = format!("  {quoted};v=1 ");
            assert_eq!(key(&[&with_parameters]).expect("a key"), bare, "{text}");
        }
        assert_eq!(key(&[r#""a\"\\b""#]), key(&[r#"a"\b"#]));
        assert_eq!(key(&[]), Ok(None));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for values in [
            &[""][..],
            &["\"\""],
            &["\"open"],
            &["\"a\" b"],
            &[r#""a\b""#],
            &["k\u{e9}y"],
            &["a\tb"],
            &["one", "two"],
            &[&long],
        ] {
            assert_eq!(key(values), Err(InvalidKey), "{values:?}");
        }
        assert!(key(&[&long[1..]]).is_ok());
    }

    #[test]
    fn each_owner_has_its_own_keys() {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("key"));
        let of = |owner: Option<&str>| {
            let owner = owner.map(Owner::new);
            Key::from_headers(&headers, owner.as_ref()).expect("a key")
        };
        assert_eq!(of(Some("me")), of(Some("me")));
        assert_ne!(of(Some("me")), of(Some("you")));
        assert_ne!(of(Some("me")), of(None));
    }

    #[test]
    fn fingerprint_covers_what_makes_a_request() {
        let request = |method: &str, uri: &str, content_type: &'static str| {
            let request = http::Request::builder().method(method).uri(uri);
            let request = request
                .header("content-type", content_type)
                .header("x", "1");
            request.body(()).expect("a request").into_parts().0
        };
        let fields = [header::CONTENT_TYPE];
        let first = Fingerprint::new(&request("POST", "/a?b", "text/plain"), b"body", &fields);
        for (method, uri, content_type, body) in [
            ("PUT", "/a?b", "text/plain", &b"body"[..]),
            ("POST", "/a?c", "text/plain", b"body"),
            ("POST", "/a?b", "text/html", b"body"),
            ("POST", "/a?b", "text/plain", b"other"),
        ] {
            let head = request(method, uri, content_type);
            assert_ne!(Fingerprint::new(&head, body, &fields), first);
        }
        let mut head = request("POST", "/a?b", "text/plain");
        head.headers.insert("x", HeaderValue::from_static("2"));
        head.headers
            .insert("authorization", HeaderValue::from_static("a new token"));
        assert_eq!(Fingerprint::new(&head, b"body", &fields), first);
        let fields = [HeaderName::from_static("x")];
        let other = Fingerprint::new(&head, b"body", &fields);
        head.headers.insert("x", HeaderValue::from_static("3"));
        assert_ne!(Fingerprint::new(&head, b"body", &fields), other);
    }
}
