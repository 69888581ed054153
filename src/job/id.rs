//! The id of a job.

use std::{
    borrow::Cow,
    error, fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The length of an id as text: 128 bits in base64url without padding.
const TEXT_LEN: usize = 22;

/// An id as text.
pub(crate) type IdText = [u8; TEXT_LEN];

/// The id of a job, which is the capability to see it.
///
/// 128 bits from a cryptographic generator, written as 22 characters of base64url (RFC 4648 §5)
/// without padding. It contains neither a time nor a counter, so it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
// Two halves rather than one `u128`, whose alignment of 16 would pad every map entry.
pub struct JobId([u64; 2]);

impl JobId {
    /// Creates an id that cannot be guessed.
    ///
    /// Each thread has a generator that the operating system seeds, so an id costs no system call.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Restores an id from [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        Self([(bits >> 64) as u64, bits as u64])
    }

    /// Returns the 128 bits of the id. Their order as bytes is that of ids.
    pub fn to_bytes(self) -> [u8; 16] {
        let bits = (u128::from(self.0[0]) << 64) | u128::from(self.0[1]);
        bits.to_be_bytes()
    }

    /// Returns 32 random bits, for places where a rare collision is harmless.
    pub(crate) fn low_bits(self) -> u32 {
        self.0[1] as u32
    }

    pub(crate) fn encode(self) -> IdText {
        let mut text = [0; TEXT_LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(self.to_bytes(), &mut text);
        debug_assert_eq!(written.ok(), Some(TEXT_LEN));
        text
    }
}

impl Hash for JobId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // All bits are random, so half of them are enough.
        state.write_u64(self.0[0]);
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.encode()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    /// Parses the only text of an id.
    ///
    /// # Errors
    ///
    /// Fails for any text that [`Display`](fmt::Display) does not write.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != TEXT_LEN {
            return Err(ParseJobIdError(()));
        }
        let mut bits = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice_unchecked(text, &mut bits) {
            Ok(16) => Ok(Self::from_bytes(bits)),
            _ => Err(ParseJobIdError(())),
        }
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The error of parsing a [`JobId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseJobIdError(());

impl fmt::Display for ParseJobIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid job id: expected 22 characters of base64url")
    }
}

impl error::Error for ParseJobIdError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::JobId;

    #[test]
    fn each_bit_of_an_id_is_random() {
        const IDS: i32 = 4096;
        let mut ones = [0_i32; 128];
        for _ in 0..IDS {
            let [high, low] = JobId::random().0;
            let bits = u128::from(high) << 64 | u128::from(low);
            for (at, count) in ones.iter_mut().enumerate() {
                *count += i32::from(bits >> at & 1 == 1);
            }
        }
        // Seven standard deviations: a fair generator fails once in three billion runs.
        assert!(
            ones.iter().all(|count| (count - IDS / 2).abs() < 7 * 32),
            "{ones:?}"
        );
    }

    proptest! {
        #[test]
        fn id_round_trips_through_its_text(bits: [u64; 2]) {
            let id = JobId(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(JobId::from_bytes(id.to_bytes()), id);
            let json = serde_json::to_string(&id).expect("text");
            prop_assert_eq!(serde_json::from_str::<JobId>(&json).expect("text"), id);
        }

        #[test]
        fn id_has_only_one_text(text in "[A-Za-z0-9_-]{22}") {
            if let Ok(id) = text.parse::<JobId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn parser_panics_on_no_text(text: String) {
            let _ = text.parse::<JobId>();
        }
    }
}
