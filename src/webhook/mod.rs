//! Webhooks: signed requests that notify a receiver of its jobs.
//!
//! Instead of polling, a client can be notified: the server sends a POST to the client's URL when a
//! job ends. The format is [Standard Webhooks 1.0](https://www.standardwebhooks.com). This module
//! has the [keys](Secret) of both sides, and [`Verifier`] for the receiver.
//!
//! It requires the feature `webhook-verify`, which needs neither the server nor an HTTP client.
//!
//! # In a receiver
//!
//! ```
//! use axum::body::Bytes;
//! use http::{HeaderMap, StatusCode};
//! use tower_accepted::webhook::{EventType, Verifier, VerifyKey};
//!
//! async fn receive(verifier: &Verifier, headers: HeaderMap, body: Bytes) -> StatusCode {
//!     let event = match verifier.verify(&headers, &body) {
//!         Ok(event) => event,
//!         Err(error) => {
//!             eprintln!("rejected a webhook: {error}");
//!             return StatusCode::BAD_REQUEST;
//!         }
//!     };
//!     match event.event_type() {
//!         Some(EventType::JobSucceeded) => println!("fetch {:?}", event.resource_location()),
//!         Some(EventType::JobFailed) => println!("failed: {:?}", event.error_code()),
//!         // Others, and those of later versions of the sender.
//!         _ => println!("{} of job {:?}", event.type_name, event.job_id()),
//!     }
//!     StatusCode::NO_CONTENT
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The shared secret, or the public key (`whpk_…`) of the sender.
//! let key: VerifyKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
//! let verifier = Verifier::new([key]);
//! # // What the sender does.
//! # use tower_accepted::webhook::Secret;
//! # let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
//! # let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
//! # let body = r#"{"type":"job.succeeded","timestamp":"2026-11-23T13:41:31.300Z","data":{}}"#;
//! # let mut headers = HeaderMap::new();
//! # headers.insert("webhook-id", "evt_1".parse()?);
//! # headers.insert("webhook-timestamp", now.into());
//! # headers.insert("webhook-signature", secret.sign("evt_1", now, body.as_bytes()).parse()?);
//! # let body = Bytes::from(body);
//! # assert_eq!(receive(&verifier, headers.clone(), "{}".into()).await, StatusCode::BAD_REQUEST);
//! # assert_eq!(receive(&verifier, headers, body).await, StatusCode::NO_CONTENT);
//! # Ok(())
//! # }
//! ```
//!
//! - Read the body as bytes. A body that was parsed and written again has another signature.
//! - Answer with a 2xx soon, and do the work afterwards. Any other status counts as a failure.
//! - Deliveries can come twice and can overtake each other. Handle each
//!   [`id`](WebhookEvent::id) once.
//! - The official libraries for other languages verify webhooks with a shared secret. They do not
//!   know public keys yet.
//!
//! # Keys
//!
//! [`Secret::generate`] makes a shared secret, [`Secret::generate_ed25519`] a private key. With a
//! private key, a receiver can verify webhooks but not sign them, and all receivers can have the
//! same public key.
//!
//! To replace a key, let the sender sign with both, then let the receivers trust the new one, and
//! then remove the old one from the sender and the receivers.
#![cfg_attr(
    feature = "webhook",
    doc = "\n# In a server\n\n[`Webhooks`] sets what is sent, and to whom. See the \
           [guide](crate::guide::webhooks)."
)]

#[cfg(feature = "webhook")]
mod address;
#[cfg(feature = "webhook")]
mod address_policy;
#[cfg(feature = "webhook")]
mod client;
#[cfg(feature = "webhook")]
mod connection;
#[cfg(feature = "webhook")]
mod connector;
mod event;
mod event_type;
#[cfg(feature = "webhook")]
mod host_rule;
mod key_text;
mod names;
mod public_key;
#[cfg(feature = "webhook")]
mod resolver;
mod scheme;
mod secret;
#[cfg(feature = "webhook")]
mod send_error;
#[cfg(feature = "webhook")]
mod signature;
#[cfg(feature = "webhook")]
mod target;
#[cfg(feature = "webhook")]
mod target_url;
#[cfg(test)]
#[cfg(feature = "webhook")]
mod tests;
#[cfg(feature = "webhook")]
mod tls;
mod verify;
mod verify_error;
mod verify_key;
#[cfg(feature = "webhook")]
mod webhooks;

#[cfg(feature = "webhook")]
pub(crate) use self::{
    client::WebhookClient,
    names::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP},
    send_error::SendFailure,
    signature::sign,
    target_url::TargetUrl,
    tls::RootCertificateError,
};
#[cfg(feature = "webhook")]
pub use self::{
    host_rule::{HostRule, ParseHostRuleError},
    target::Target,
    webhooks::Webhooks,
};

pub use self::{
    event::WebhookEvent,
    event_type::{EventType, ParseEventTypeError},
    key_text::ParseKeyError,
    public_key::PublicKey,
    secret::Secret,
    verify::Verifier,
    verify_error::VerifyError,
    verify_key::VerifyKey,
};
