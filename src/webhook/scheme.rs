//! The versions of signatures, and the bytes that they cover (Standard Webhooks 1.0).

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The algorithm of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureVersion {
    /// HMAC-SHA256 with a shared secret.
    V1,
    /// ed25519 with a key pair.
    V1a,
}

impl SignatureVersion {
    /// Returns `None` for a version that this crate does not know.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "v1" => Some(Self::V1),
            "v1a" => Some(Self::V1a),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }

    /// Returns a signature as text, such as `v1,K5oZ…`.
    pub(super) fn encode(self, signature: &[u8]) -> String {
        format!("{},{}", self.as_str(), STANDARD.encode(signature))
    }
}

/// Returns the bytes that are signed: `id.timestamp.body`.
pub(super) fn signed_content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), timestamp.as_bytes(), body].join(&b'.')
}
