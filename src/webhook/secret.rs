//! The secret that signs webhooks: a shared one, or a private key.

use std::{fmt, str::FromStr, sync::Arc};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::Ed25519KeyPair,
};

use super::{
    key_text::{self, ParseKeyError},
    public_key::PublicKey,
    scheme::{SignatureVersion, signed_content},
};

pub(super) const SHARED_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";

/// The bytes of an ed25519 private key, and those of a generated shared secret.
const SEED_BYTES: usize = 32;

/// A secret that signs webhooks.
///
/// There are two kinds. Both parse from their text, and [`expose`](Self::expose) returns it:
///
/// | kind | text | signs as | the receiver has |
/// |---|---|---|---|
/// | shared | `whsec_` and 24 to 64 bytes in base64 | `v1`: HMAC-SHA256 | the same secret |
/// | private key | `whsk_` and 32 or 64 bytes in base64 | `v1a`: ed25519 | the [`PublicKey`] |
///
/// A private key of 64 bytes has its public key as its second half. The official libraries of
/// Standard Webhooks verify `v1` alone. Neither `Debug` nor an error shows a secret.
///
/// ```
/// use tower_accepted::webhook::Secret;
///
/// let secret = Secret::generate_ed25519();
/// let text = secret.expose(); // keep it with the server's other secrets
/// let same: Secret = text.parse()?;
/// assert_eq!(same.public_key(), secret.public_key());
/// # Ok::<_, tower_accepted::webhook::ParseKeyError>(())
/// ```
#[derive(Clone)]
pub struct Secret(pub(super) SecretKey);

#[derive(Clone)]
pub(super) enum SecretKey {
    Shared {
        bytes: Arc<[u8]>,
        key: hmac::Key,
    },
    Private {
        seed: [u8; SEED_BYTES],
        pair: Arc<Ed25519KeyPair>,
        public: PublicKey,
    },
}

impl Secret {
    /// Generates a shared secret of 32 bytes.
    ///
    /// Use one secret for each receiver: a receiver can sign with it too.
    ///
    /// # Panics
    ///
    /// If the operating system has no random bytes.
    pub fn generate() -> Self {
        Self::shared(&random_bytes())
    }

    /// Generates an ed25519 private key.
    ///
    /// # Panics
    ///
    /// If the operating system has no random bytes.
    pub fn generate_ed25519() -> Self {
        let seed = random_bytes();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        Self::private(seed, pair.expect("a seed has 32 bytes"))
    }

    fn shared(bytes: &[u8]) -> Self {
        Self(SecretKey::Shared {
            bytes: bytes.into(),
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes),
        })
    }

    fn private(seed: [u8; SEED_BYTES], pair: Ed25519KeyPair) -> Self {
        Self(SecretKey::Private {
            seed,
            public: PublicKey::of(&pair),
            pair: Arc::new(pair),
        })
    }

    /// Returns the secret as text, which [`FromStr`] parses.
    pub fn expose(&self) -> String {
        match &self.0 {
            SecretKey::Shared { bytes, .. } => key_text::encode(SHARED_PREFIX, bytes),
            SecretKey::Private { seed, public, .. } => {
                key_text::encode(PRIVATE_PREFIX, &[seed, public.as_bytes()].concat())
            }
        }
    }

    /// Returns the key that verifies signatures of a private key, or `None` for a shared secret.
    pub fn public_key(&self) -> Option<PublicKey> {
        match &self.0 {
            SecretKey::Shared { .. } => None,
            SecretKey::Private { public, .. } => Some(*public),
        }
    }

    /// Returns a signature for `webhook-signature`, such as `v1,K5oZ…`.
    ///
    /// The layer signs its webhooks itself. This is for tests of a receiver, and for senders of
    /// other events. `id` and `timestamp` are `webhook-id`, which must not contain a full stop, and
    /// `webhook-timestamp`, in seconds since the Unix epoch. `body` must be sent byte for byte.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        self.sign_content(&signed_content(id, &timestamp.to_string(), body))
    }

    pub(super) fn sign_content(&self, content: &[u8]) -> String {
        match &self.0 {
            SecretKey::Shared { key, .. } => {
                SignatureVersion::V1.encode(hmac::sign(key, content).as_ref())
            }
            SecretKey::Private { pair, .. } => {
                SignatureVersion::V1a.encode(pair.sign(content).as_ref())
            }
        }
    }
}

/// Returns bytes of the operating system's generator.
fn random_bytes() -> [u8; SEED_BYTES] {
    let mut bytes = [0; SEED_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.expect("the operating system has random bytes");
    bytes
}

impl FromStr for Secret {
    type Err = ParseKeyError;

    /// # Errors
    ///
    /// Fails unless the text is `whsec_` and 24 to 64 bytes in base64, or `whsk_` and 32 or 64
    /// bytes. The halves of a private key of 64 bytes must belong together.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(base64) = text.strip_prefix(SHARED_PREFIX) {
            let bytes = key_text::decode(base64)?;
            if !(24..=64).contains(&bytes.len()) {
                return Err(ParseKeyError::SecretLength(bytes.len()));
            }
            return Ok(Self::shared(&bytes));
        }
        let base64 = text.strip_prefix(PRIVATE_PREFIX);
        let base64 = base64.ok_or(ParseKeyError::UnknownPrefix(&[
            SHARED_PREFIX,
            PRIVATE_PREFIX,
        ]))?;
        let bytes = key_text::decode(base64)?;
        let length = || ParseKeyError::PrivateKeyLength(bytes.len());
        let (seed, public) = bytes.split_first_chunk::<SEED_BYTES>().ok_or_else(length)?;
        let pair = match public.len() {
            0 => Ed25519KeyPair::from_seed_unchecked(seed),
            SEED_BYTES => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            _ => return Err(length()),
        };
        let pair = pair.map_err(|_| ParseKeyError::MismatchedHalves)?;
        Ok(Self::private(*seed, pair))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            SecretKey::Shared { .. } => "Secret(whsec_…)",
            SecretKey::Private { .. } => "Secret(whsk_…)",
        })
    }
}
