//! Names of the header fields of a webhook (Standard Webhooks 1.0).

use http::HeaderName;

/// The id of the event. It stays the same for each attempt.
pub(crate) const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// The time of this attempt, in seconds since the Unix epoch.
pub(crate) const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// Signatures of the id, the timestamp and the body, with spaces between them.
pub(crate) const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
