//! The public key that verifies the signatures of a private one.

use std::{fmt, str::FromStr};

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::key_text::{self, ParseKeyError};

pub(super) const PUBLIC_PREFIX: &str = "whpk_";

/// An ed25519 public key, which verifies signatures of the version `v1a`.
///
/// It is not secret. As text, it is `whpk_` and 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Returns the public key of a pair.
    pub(super) fn of(pair: &Ed25519KeyPair) -> Self {
        let bytes = pair.public_key().as_ref().try_into();
        Self(bytes.expect("a public key has 32 bytes"))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns `true` if the private key has signed this content.
    pub(super) fn has_signed(&self, content: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(content, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    /// # Errors
    ///
    /// Fails unless the text is `whpk_` and 32 bytes in base64.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let base64 = text.strip_prefix(PUBLIC_PREFIX);
        let base64 = base64.ok_or(ParseKeyError::UnknownPrefix(&[PUBLIC_PREFIX]))?;
        let bytes = key_text::decode(base64)?;
        let key = bytes.as_slice().try_into().map(Self);
        key.map_err(|_| ParseKeyError::PublicKeyLength(bytes.len()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&key_text::encode(PUBLIC_PREFIX, &self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}
