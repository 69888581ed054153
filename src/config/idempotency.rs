//! The settings for requests with an `Idempotency-Key`.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, header, request::Parts};

use super::outcomes::Outcomes;
use crate::{
    job::Fingerprint,
    protocol::{Multipart, is_json, sort_members},
};

/// The settings for requests with an `Idempotency-Key`
/// (draft-ietf-httpapi-idempotency-key-header).
///
/// By default a key is optional. A repeat of a request, with the same key, method, URI, body and
/// `Content-Type`, joins the first request's job, unfinished or ended. Its answer has
/// `Idempotent-Replayed: true`. A different request with the same key gets 422. A malformed key
/// gets 400. A request that passes through is called without regard to its key.
///
/// A key is remembered until [`keep_for`](Self::keep_for) after its job's end, even if the job has
/// expired or was evicted. A repeat then gets 410, and the inner service is not called. These free
/// a key, so that the next request with it is a new one:
///
/// - a `DELETE` of the job. A cancel does not.
/// - the end of a job whose request never reached its service. The call did not start, or its
///   response is marked as [`Unreached`](crate::Unreached).
/// - an outcome that [`keep`](Self::keep) excludes.
///
/// ```
/// use std::time::Duration;
///
/// use tower_accepted::{Idempotency, Jobs, Outcomes};
///
/// let payments = Idempotency::new()
///     .required(true)
///     .keep(Outcomes::Final) // a repeat after a 5xx calls the service again
///     .keep_for(Duration::from_secs(7 * 24 * 3600));
/// let layer = Jobs::new().layer().idempotency(payments);
/// # let _ = layer;
/// ```
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until they are given to a layer"]
pub struct Idempotency {
    pub(crate) required: bool,
    pub(crate) strict: bool,
    pub(crate) keep_for: Option<Duration>,
    pub(crate) outcomes: Outcomes,
    /// The fields that the fingerprint of a request covers.
    fields: Vec<HeaderName>,
    ignore_boundary: bool,
    ignore_member_order: bool,
    own_fingerprint: Option<FingerprintFn>,
}

/// Returns the fingerprint of a request.
#[derive(Clone)]
struct FingerprintFn(Arc<DynFingerprintFn>);

type DynFingerprintFn = dyn Fn(&Parts, &Bytes) -> Fingerprint + Send + Sync;

impl fmt::Debug for FingerprintFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintFn")
    }
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            required: false,
            strict: false,
            keep_for: None,
            outcomes: Outcomes::All,
            fields: vec![header::CONTENT_TYPE],
            ignore_boundary: false,
            ignore_member_order: false,
            own_fingerprint: None,
        }
    }
}

impl Idempotency {
    /// Creates the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires a key: a request that would become a job and has none gets 400. Default: `false`.
    pub fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Answers a repeat with 409 while the first request's job is unfinished, instead of joining
    /// it. Default: `false`.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets how long a key is remembered, from the end of its job. Default: the retention of the
    /// store, and at least 24 hours.
    ///
    /// A store in NATS JetStream remembers no key for longer than its option `keep_keys_for`.
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.keep_for = Some(time);
        self
    }

    /// Sets the outcomes that a key keeps. Default: [`Outcomes::All`].
    ///
    /// After any other outcome, a repeat calls the inner service again.
    pub fn keep(mut self, outcomes: Outcomes) -> Self {
        self.outcomes = outcomes;
        self
    }

    /// Sets the request fields that the fingerprint covers, besides method, URI and body. Requests
    /// with one key and different fingerprints are different requests. Default: `Content-Type`.
    pub fn headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.fields = names.into_iter().collect();
        self
    }

    /// Makes multipart bodies equal if they differ only in their boundary. Default: `false`.
    ///
    /// Most clients choose a new boundary for each repeat.
    pub fn ignore_boundary(mut self, ignore: bool) -> Self {
        self.ignore_boundary = ignore;
        self
    }

    /// Makes JSON bodies equal if they differ only in the order of the members of objects, and in
    /// white space between tokens. Default: `false`.
    ///
    /// Bodies that are not JSON, or nested more than 64 levels deep, are compared as they are.
    pub fn ignore_member_order(mut self, ignore: bool) -> Self {
        self.ignore_member_order = ignore;
        self
    }

    /// Sets a fingerprint of your own: two requests with one key are the same request if the
    /// closure returns equal bytes for them. Default: the fingerprint that
    /// [`headers`](Self::headers) describes.
    ///
    /// It replaces the default fingerprint, with method and URI.
    ///
    /// ```
    /// use tower_accepted::Idempotency;
    ///
    /// // A repeat may have another query and other fields.
    /// let idempotency = Idempotency::new().fingerprint(|head, body| {
    ///     [head.method.as_str().as_bytes(), b" ", head.uri.path().as_bytes(), b" ", body].concat()
    /// });
    /// # let _ = idempotency;
    /// ```
    pub fn fingerprint<F, T>(mut self, fingerprint: F) -> Self
    where
        F: Fn(&Parts, &Bytes) -> T + Send + Sync + 'static,
        T: AsRef<[u8]>,
    {
        let digest =
            move |head: &Parts, body: &Bytes| Fingerprint::of(fingerprint(head, body).as_ref());
        self.own_fingerprint = Some(FingerprintFn(Arc::new(digest)));
        self
    }

    /// Computes the fingerprint of a request.
    pub(crate) fn fingerprint_of(&self, head: &Parts, body: &Bytes) -> Fingerprint {
        if let Some(FingerprintFn(own)) = &self.own_fingerprint {
            return own(head, body);
        }
        let (content_type, body) = self.normalize(head, body);
        Fingerprint::with_content_type(head, content_type.as_deref(), &body, &self.fields)
    }

    /// Returns the media type if it differs from the request's, and the body as it is compared.
    fn normalize<'a>(&self, head: &Parts, body: &'a Bytes) -> (Option<String>, Cow<'a, [u8]>) {
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default();
        if self.ignore_boundary
            && let Some(multipart) = Multipart::new(content_type)
        {
            let body = multipart.without_boundary(body);
            return (Some(multipart.content_type), body.into());
        }
        if self.ignore_member_order
            && is_json(content_type)
            && let Some(sorted) = sort_members(body)
        {
            return (None, sorted.into());
        }
        (None, Cow::Borrowed(body))
    }
}
