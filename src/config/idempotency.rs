//! The settings for requests with an `Idempotency-Key`.

use http::{HeaderName, header};

/// The settings for requests with an `Idempotency-Key`
/// (draft-ietf-httpapi-idempotency-key-header).
///
/// By default a key is optional. A repeat of a request, with the same key, method, URI, body and
/// `Content-Type`, joins the first request's job, unfinished or ended. Its answer has
/// `Idempotent-Replayed: true`. A different request with the same key gets 422. A malformed key
/// gets 400. After a `DELETE` of the job, its key can be used again: the next request is a new one.
#[derive(Debug, Clone)]
#[must_use = "settings do nothing until they are given to a layer"]
pub struct Idempotency {
    pub(crate) required: bool,
    pub(crate) strict: bool,
    /// The fields that the fingerprint of a request covers.
    pub(crate) fields: Vec<HeaderName>,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            required: false,
            strict: false,
            fields: vec![header::CONTENT_TYPE],
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

    /// Sets the request fields that the fingerprint covers, besides method, URI and body. Requests
    /// with one key and different fingerprints are different requests. Default: `Content-Type`.
    pub fn headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.fields = names.into_iter().collect();
        self
    }
}
