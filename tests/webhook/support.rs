//! Signed requests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use tower_accepted::webhook::Secret;

/// The time of requests in tests that do not run other programs.
pub(crate) const NOW: u64 = 1_795_000_000;

pub(crate) const ID: &str = "evt_2KWPBgLlAfxdpx2AI54pPJ85f4W";

pub(crate) const BODY: &str = concat!(
    r#"{"type":"job.succeeded","timestamp":"2026-11-23T13:41:31.300Z","data":{"#,
    r#""id":"tQ3nC2hDQ0eY6o1bF9qk5A","status":"succeeded"}}"#,
);

/// Returns the seconds since the Unix epoch, for a verifier that uses the clock.
pub(crate) fn seconds_now() -> u64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// Returns the time that many seconds after the Unix epoch.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Returns the header fields of a webhook.
pub(crate) fn fields(id: &str, timestamp: &str, signatures: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, text) in [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", signatures),
    ] {
        let value = HeaderValue::from_str(text).expect("a field value");
        headers.insert(name, value);
    }
    headers
}

/// Returns the header fields of a webhook that each of the secrets has signed.
pub(crate) fn signed(secrets: &[&Secret], timestamp: u64, body: &[u8]) -> HeaderMap {
    let signatures = secrets
        .iter()
        .map(|secret| secret.sign(ID, timestamp, body));
    let signatures: Vec<_> = signatures.collect();
    fields(ID, &timestamp.to_string(), &signatures.join(" "))
}
