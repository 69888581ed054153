use std::{
    error, fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The length of an id as text: 128 bits in base64url without padding.
const LEN: usize = 22;

/// An id as text.
pub(crate) type IdText = [u8; LEN];

/// Names one job, and is the capability to see it.
///
/// 128 bits from a cryptographic generator, written as 22 characters of base64url (RFC 4648 §5)
/// without padding. There is neither a time nor a counter in it: who has not been told an id cannot
/// guess one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
// Two halves rather than one `u128`, whose alignment of 16 would pad every map entry.
pub struct JobId([u64; 2]);

impl JobId {
    /// A new id that nobody can guess.
    ///
    /// The generator is `rand`'s, one a thread: seeded by the operating system and a cipher from
    /// there on, so that an id costs no system call.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Returns 32 random bits, for places where a rare collision is harmless.
    pub(crate) fn low_bits(self) -> u32 {
        self.0[1] as u32
    }

    pub(crate) fn encode(self) -> IdText {
        let mut text = [0; LEN];
        let bits = (u128::from(self.0[0]) << 64) | u128::from(self.0[1]);
        let written = URL_SAFE_NO_PAD.encode_slice(bits.to_be_bytes(), &mut text);
        debug_assert_eq!(written.ok(), Some(LEN));
        text
    }
}

impl Hash for JobId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // All bits are random: half of them tell ids apart as well as all.
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

    /// Reads an id in its one spelling.
    ///
    /// # Errors
    ///
    /// Any other text than the 22 characters that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != LEN {
            return Err(ParseJobIdError(()));
        }
        let mut bits = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice_unchecked(text, &mut bits) {
            Ok(16) => {
                let bits = u128::from_be_bytes(bits);
                Ok(Self([(bits >> 64) as u64, bits as u64]))
            }
            _ => Err(ParseJobIdError(())),
        }
    }
}

/// A text that is no [`JobId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseJobIdError(());

impl fmt::Display for ParseJobIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a job id: 22 characters of base64url are expected")
    }
}

impl error::Error for ParseJobIdError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::JobId;

    proptest! {
        #[test]
        fn an_id_is_read_back_from_its_text(bits: [u64; 2]) {
            let id = JobId(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn an_id_has_one_spelling(text in "[A-Za-z0-9_-]{22}") {
            if let Ok(id) = text.parse::<JobId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<JobId>();
        }
    }
}
