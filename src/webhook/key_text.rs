//! Keys as text: a prefix that says what they are, and base64.

use std::{error, fmt};

use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode, GeneralPurpose,
        general_purpose::{PAD, STANDARD},
    },
};

/// Reads keys without padding too, as the official libraries do.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns the bytes of a key, without the prefix.
pub(super) fn decode(base64: &str) -> Result<Vec<u8>, ParseKeyError> {
    let bytes = DECODER.decode(base64);
    bytes.map_err(|_| ParseKeyError::InvalidBase64)
}

/// Returns a key as text.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> String {
    format!("{prefix}{}", STANDARD.encode(bytes))
}

/// The error of parsing a [`Secret`](super::Secret), a [`PublicKey`](super::PublicKey) or a
/// [`VerifyKey`](super::VerifyKey). It contains nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// The text does not start with one of these prefixes.
    UnknownPrefix(&'static [&'static str]),
    /// The text after the prefix is not base64.
    InvalidBase64,
    /// A shared secret has this number of bytes, instead of 24 to 64.
    SecretLength(usize),
    /// A private key has this number of bytes, instead of 32 or 64.
    PrivateKeyLength(usize),
    /// A public key has this number of bytes, instead of 32.
    PublicKeyLength(usize),
    /// The second half of a private key is not the public key of the first half.
    MismatchedHalves,
}

impl fmt::Display for ParseKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPrefix(prefixes) => {
                write!(f, "unknown prefix: expected {}", prefixes.join(" or "))
            }
            Self::InvalidBase64 => f.write_str("invalid base64 after the prefix"),
            Self::SecretLength(length) => {
                write!(f, "the secret has {length} bytes: expected 24 to 64")
            }
            Self::PrivateKeyLength(length) => {
                write!(f, "the private key has {length} bytes: expected 32 or 64")
            }
            Self::PublicKeyLength(length) => {
                write!(f, "the public key has {length} bytes: expected 32")
            }
            Self::MismatchedHalves => {
                f.write_str("the private key and its public key do not belong together")
            }
        }
    }
}

impl error::Error for ParseKeyError {}
