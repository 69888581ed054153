//! A key that a receiver trusts.

use std::{fmt, str::FromStr};

use ring::hmac;

use super::{
    key_text::ParseKeyError,
    public_key::{PUBLIC_PREFIX, PublicKey},
    scheme::SignatureVersion,
    secret::{SHARED_PREFIX, Secret, SecretKey},
};

/// A key that a receiver trusts: a shared [`Secret`], or the [`PublicKey`] of a sender.
///
/// It parses from `whsec_…` and `whpk_…`. A receiver needs no private key (`whsk_…`), so that text
/// is an error. `Debug` shows no secret.
#[derive(Clone)]
pub struct VerifyKey(TrustedKey);

#[derive(Clone)]
enum TrustedKey {
    Shared(hmac::Key),
    Public(PublicKey),
}

impl VerifyKey {
    /// Returns `true` if the signature is one of this content, by this key, in this version.
    pub(super) fn has_signed(
        &self,
        content: &[u8],
        version: SignatureVersion,
        signature: &[u8],
    ) -> bool {
        match (&self.0, version) {
            // Its time does not depend on the position of a difference.
            (TrustedKey::Shared(key), SignatureVersion::V1) => {
                hmac::verify(key, content, signature).is_ok()
            }
            (TrustedKey::Public(key), SignatureVersion::V1a) => key.has_signed(content, signature),
            (TrustedKey::Shared(_), SignatureVersion::V1a)
            | (TrustedKey::Public(_), SignatureVersion::V1) => false,
        }
    }
}

impl From<PublicKey> for VerifyKey {
    fn from(key: PublicKey) -> Self {
        Self(TrustedKey::Public(key))
    }
}

impl From<Secret> for VerifyKey {
    /// Keeps the public key of a private one.
    fn from(secret: Secret) -> Self {
        match secret.0 {
            SecretKey::Shared { key, .. } => Self(TrustedKey::Shared(key)),
            SecretKey::Private { public, .. } => public.into(),
        }
    }
}

impl FromStr for VerifyKey {
    type Err = ParseKeyError;

    /// # Errors
    ///
    /// Fails unless the text is `whsec_` and 24 to 64 bytes in base64, or `whpk_` and 32 bytes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(SHARED_PREFIX) {
            text.parse::<Secret>().map(Self::from)
        } else if text.starts_with(PUBLIC_PREFIX) {
            text.parse::<PublicKey>().map(Self::from)
        } else {
            let prefixes = &[SHARED_PREFIX, PUBLIC_PREFIX];
            Err(ParseKeyError::UnknownPrefix(prefixes))
        }
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TrustedKey::Shared(_) => f.write_str("VerifyKey(whsec_…)"),
            TrustedKey::Public(key) => write!(f, "VerifyKey({key})"),
        }
    }
}
