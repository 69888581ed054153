//! The check that a request is a webhook of a trusted sender.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};

use super::{
    event::WebhookEvent,
    names::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP},
    scheme::{SignatureVersion, signed_content},
    verify_error::VerifyError,
    verify_key::VerifyKey,
};

/// The maximum difference between the clocks, as in the official libraries.
const DEFAULT_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The maximum number of signatures that are tried. Each one costs a pass over the body.
const MAX_SIGNATURES: usize = 16;

/// Verifies that requests are webhooks of a trusted sender.
///
/// ```
/// use std::time::Duration;
/// use tower_accepted::webhook::{Secret, Verifier};
///
/// let verifier = Verifier::new([Secret::generate()]).tolerance(Duration::from_secs(60));
/// # drop(verifier);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a verifier does nothing until it verifies a request"]
pub struct Verifier {
    keys: Vec<VerifyKey>,
    tolerance: Duration,
}

impl Verifier {
    /// Creates a verifier that trusts these keys. Without a key, it rejects everything.
    pub fn new(keys: impl IntoIterator<Item = impl Into<VerifyKey>>) -> Self {
        Self {
            keys: keys.into_iter().map(Into::into).collect(),
            tolerance: DEFAULT_TOLERANCE,
        }
    }

    /// Sets how far the timestamp may be from the receiver's time, into the past and the future.
    ///
    /// Default: 5 minutes. A fraction of a second is ignored. Within this time, an attacker can
    /// repeat a webhook as it was sent. Remember its [id](WebhookEvent::id) for two weeks, since
    /// the server can send an event again.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Checks that the holder of one of the keys has signed a request, and returns its event.
    ///
    /// `body` must be the body as it was received, byte for byte. One valid signature is enough, so
    /// both sides can replace their keys one after the other. Signatures of unknown versions are
    /// skipped. Signatures are compared in constant time.
    ///
    /// # Errors
    ///
    /// - A header field is missing, repeated or invalid.
    /// - The timestamp is outside the tolerance.
    /// - No signature matches a key, or there are more than 16 signatures.
    /// - The body is signed, but it is not the event of a job.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<WebhookEvent, VerifyError> {
        self.verify_at(SystemTime::now(), headers, body)
    }

    /// Verifies a request as of another time, for tests with recorded webhooks.
    ///
    /// # Errors
    ///
    /// As for [`verify`](Self::verify).
    pub fn verify_at(
        &self,
        now: SystemTime,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<WebhookEvent, VerifyError> {
        let id = only_value(headers, WEBHOOK_ID)?;
        // Otherwise the end of the id could pass for a timestamp.
        if id.is_empty() || id.contains('.') {
            return Err(VerifyError::InvalidHeader(WEBHOOK_ID));
        }
        let timestamp = only_value(headers, WEBHOOK_TIMESTAMP)?;
        check_time(timestamp, now, self.tolerance)?;
        let signatures = only_value(headers, WEBHOOK_SIGNATURE)?;
        check_signatures(signatures, &signed_content(id, timestamp, body), &self.keys)?;
        WebhookEvent::parse(id, body).map_err(VerifyError::InvalidBody)
    }
}

/// Returns the only value of a header field.
fn only_value(headers: &HeaderMap, name: HeaderName) -> Result<&str, VerifyError> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Err(VerifyError::MissingHeader(name));
    };
    if values.next().is_some() {
        return Err(VerifyError::RepeatedHeader(name));
    }
    let text = value.to_str();
    text.map_err(|_| VerifyError::InvalidHeader(name))
}

fn check_time(timestamp: &str, now: SystemTime, tolerance: Duration) -> Result<(), VerifyError> {
    // `parse` would accept a sign.
    let is_number = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let sent = timestamp.parse::<u64>().ok().filter(|_| is_number);
    let sent = sent.ok_or(VerifyError::InvalidHeader(WEBHOOK_TIMESTAMP))?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now.abs_diff(sent) <= tolerance.as_secs() {
        Ok(())
    } else if sent < now {
        Err(VerifyError::TooOld)
    } else {
        Err(VerifyError::TooNew)
    }
}

/// Checks that one of the signatures is one of the content by one of the keys.
fn check_signatures(
    signatures: &str,
    content: &[u8],
    keys: &[VerifyKey],
) -> Result<(), VerifyError> {
    for (at, (version, signature)) in signatures.split(' ').filter_map(decode).enumerate() {
        if at == MAX_SIGNATURES {
            return Err(VerifyError::TooManySignatures);
        }
        let mut keys = keys.iter();
        if keys.any(|key| key.has_signed(content, version, &signature)) {
            return Ok(());
        }
    }
    Err(VerifyError::NoMatch)
}

/// Returns `None` for a signature that no key can have made.
fn decode(signature: &str) -> Option<(SignatureVersion, Vec<u8>)> {
    let (version, base64) = signature.split_once(',')?;
    let version = SignatureVersion::parse(version)?;
    Some((version, STANDARD.decode(base64).ok()?))
}
