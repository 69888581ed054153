use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use serde::{Deserialize, Serialize};

use crate::job::{Digest, Owner};

/// The header in which a client names a request, to be able to repeat it
/// (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Tells that the answer is about the job of an earlier request with the same key.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key taken, in bytes.
const MAX_KEY: usize = 255;

/// How requests with an `Idempotency-Key` are treated.
///
/// The default takes a key where there is one: the same key with the same request (method, URI, body,
/// `Content-Type`) joins the job of the first, unfinished or not, and is told so by
/// `Idempotent-Replayed: true`; with another request it is answered 422, and malformed 400.
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until they are given to a layer"]
pub struct Idempotency {
    pub(crate) required: bool,
    pub(crate) strict: bool,
    headers: Vec<HeaderName>,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            required: false,
            strict: false,
            headers: vec![header::CONTENT_TYPE],
        }
    }
}

impl Idempotency {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers 400 to a request that would become a job and has no key. Default: no.
    pub fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Answers 409 to a repeated request while the first one's job is unfinished, instead of joining
    /// it. Default: no.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Which fields of a request make it another one, besides method, URI and body. Default:
    /// `Content-Type`.
    pub fn headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.headers = names.into_iter().collect();
        self
    }

    /// What tells this request from others with its key.
    pub(crate) fn fingerprint(&self, head: &Parts, body: &[u8]) -> Fingerprint {
        let uri = head.uri.path_and_query().map_or("", |uri| uri.as_str());
        let method = head.method.as_str();
        let fields = self.headers.iter().map(|name| {
            let values = head.headers.get_all(name).iter();
            Digest::of(values.map(HeaderValue::as_bytes))
        });
        let fields: Vec<Digest> = fields.collect();
        let fields = fields.iter().map(|field| field.as_bytes());
        let parts = [method.as_bytes(), uri.as_bytes(), body].into_iter();
        Fingerprint(Digest::of(parts.chain(fields)))
    }
}

/// A request's key, within its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

/// What a key was first used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Digest);

/// A key that cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Key {
    /// The key in a request's head: a structured-field string (RFC 9651 §3.3.3), or bare, as most
    /// clients send it. Both spellings of a key are the same.
    pub(crate) fn of(
        headers: &HeaderMap,
        owner: Option<&Owner>,
    ) -> Result<Option<Self>, Malformed> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = value.as_bytes().trim_ascii();
        if values.next().is_some() || !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(Malformed);
        }
        let key = match text.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted).ok_or(Malformed)?,
            None => text.to_vec(),
        };
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(Malformed);
        }
        let owner = owner.map_or(&b""[..], |owner| owner.digest().as_bytes());
        Ok(Some(Self(Digest::of([owner, &key]))))
    }
}

/// The text of a quoted string, from behind its first quote; parameters may follow it.
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

    fn key(values: &[&str]) -> Result<Option<Key>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a field value");
            headers.append(IDEMPOTENCY_KEY, value);
        }
        Key::of(&headers, None)
    }

    #[test]
    fn quoted_and_bare_keys_are_the_same() {
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
    fn what_cannot_be_a_key_is_malformed() {
        let long = "x".repeat(MAX_KEY + 1);
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
            assert_eq!(key(values), Err(Malformed), "{values:?}");
        }
        assert!(key(&[&long[1..]]).is_ok());
    }

    #[test]
    fn an_owners_keys_are_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("key"));
        let of = |owner: Option<&str>| {
            let owner = owner.map(Owner::new);
            Key::of(&headers, owner.as_ref()).expect("a key")
        };
        assert_eq!(of(Some("me")), of(Some("me")));
        assert_ne!(of(Some("me")), of(Some("you")));
        assert_ne!(of(Some("me")), of(None));
    }

    #[test]
    fn another_method_address_body_or_chosen_field_is_another_request() {
        let request = |method: &str, uri: &str, content_type: &'static str| {
            let request = http::Request::builder().method(method).uri(uri);
            let request = request
                .header("content-type", content_type)
                .header("x", "1");
            request.body(()).expect("a request").into_parts().0
        };
        let idempotency = Idempotency::new();
        let first = idempotency.fingerprint(&request("POST", "/a?b", "text/plain"), b"body");
        for (method, uri, content_type, body) in [
            ("PUT", "/a?b", "text/plain", &b"body"[..]),
            ("POST", "/a?c", "text/plain", b"body"),
            ("POST", "/a?b", "text/html", b"body"),
            ("POST", "/a?b", "text/plain", b"other"),
        ] {
            let head = request(method, uri, content_type);
            assert_ne!(idempotency.fingerprint(&head, body), first);
        }
        let mut head = request("POST", "/a?b", "text/plain");
        head.headers.insert("x", HeaderValue::from_static("2"));
        head.headers
            .insert("authorization", HeaderValue::from_static("a new token"));
        assert_eq!(idempotency.fingerprint(&head, b"body"), first);
        let with_x = Idempotency::new().headers([HeaderName::from_static("x")]);
        let other = with_x.fingerprint(&head, b"body");
        head.headers.insert("x", HeaderValue::from_static("3"));
        assert_ne!(with_x.fingerprint(&head, b"body"), other);
    }
}
