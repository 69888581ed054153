//! Names of the header fields that the crate `http` does not define.

use http::HeaderName;

/// The status code of the response that a monitor returns for a job (OData 4.01 §8.3.1).
pub(crate) const ASYNC_RESULT: HeaderName = HeaderName::from_static("asyncresult");

/// The client's name for a request that it may repeat (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks a response that belongs to the job of an earlier request with the same key.
#[cfg(feature = "server")]
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The start of an `ETag` that a monitor gives a result without one. The job's id follows.
///
/// The tag identifies the result at the monitor alone, so a client does not hand it on.
pub(crate) const RESULT_ETAG_START: &str = "\"tower-accepted:";

/// The path and query of the request, which a stored response has if references in it depend on
/// them. No client gets this field.
#[cfg(feature = "server")]
pub(crate) const RESULT_TARGET: HeaderName = HeaderName::from_static("tower-accepted-target");

/// The id of the last event that a client has received (HTML standard §9.2.4).
#[cfg(feature = "server")]
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The client's preferences (RFC 7240 §2).
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The preferences that the server has honored (RFC 7240 §3).
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
