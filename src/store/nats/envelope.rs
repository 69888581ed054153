//! The encoding of requests and records: a version, a head in JSON and a raw body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::MaxSizeReached};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::NatsError;
use crate::store::MAX_FIELD_VALUES;

/// The first byte of every message. Messages with any other version are rejected.
const VERSION: u8 = 1;

/// The bytes before the head: the version, then the head's length as a big-endian `u32`.
const PRELUDE_BYTES: usize = 5;

pub(super) fn encode(head: &impl Serialize, body: &[u8]) -> Bytes {
    let mut bytes = vec![VERSION, 0, 0, 0, 0];
    serde_json::to_writer(&mut bytes, head).expect("heads have string keys and plain values");
    let length = u32::try_from(bytes.len() - PRELUDE_BYTES).expect("a head is below 4 GiB");
    bytes[1..PRELUDE_BYTES].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

/// Splits a message into its head and its body. `subject` names the message in errors.
pub(super) fn decode<T: DeserializeOwned>(
    subject: &str,
    mut bytes: Bytes,
) -> Result<(T, Bytes), NatsError> {
    let unreadable = |why: &'static str| NatsError::unreadable(subject, why);
    if bytes.first() != Some(&VERSION) {
        return Err(unreadable("unknown version"));
    }
    if bytes.len() < PRELUDE_BYTES {
        return Err(unreadable("truncated"));
    }
    let prelude = bytes.split_to(PRELUDE_BYTES);
    let length = u32::from_be_bytes([prelude[1], prelude[2], prelude[3], prelude[4]]) as usize;
    if bytes.len() < length {
        return Err(unreadable("truncated"));
    }
    let head = bytes.split_to(length);
    let head =
        serde_json::from_slice(&head).map_err(|error| NatsError::unreadable(subject, error))?;
    Ok((head, bytes))
}

/// The room for the fields that a replay adds.
const SPARE_FIELDS: usize = 64;

/// The first character of a sensitive value. No byte of a value becomes this character.
const SENSITIVE: char = '\u{100}';

/// Header fields as JSON.
///
/// Each byte of a value becomes the character of the same number. So every value is valid JSON, and
/// ASCII values stay readable. A sensitive value has [`SENSITIVE`] in front.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StoredFields(Vec<(String, String)>);

impl From<&HeaderMap> for StoredFields {
    fn from(headers: &HeaderMap) -> Self {
        let fields = headers.iter().map(|(name, value)| {
            let marker = value.is_sensitive().then_some(SENSITIVE);
            let bytes = value.as_bytes().iter().map(|&byte| char::from(byte));
            let value = marker.into_iter().chain(bytes).collect();
            (name.as_str().to_owned(), value)
        });
        Self(fields.collect())
    }
}

impl TryFrom<StoredFields> for HeaderMap {
    type Error = MaxSizeReached;

    /// Skips fields that are not valid, which this crate never writes.
    ///
    /// # Errors
    ///
    /// Fails if a map has no room for so many fields. Version 0.1 stored any number.
    fn try_from(fields: StoredFields) -> Result<Self, MaxSizeReached> {
        let mut headers = Self::try_with_capacity(fields.0.len())?;
        for (name, value) in fields.0 {
            if let (Ok(name), Some(value)) = (HeaderName::try_from(name), parse_value(&value)) {
                headers.try_append(name, value)?;
            }
        }
        if headers.len() > MAX_FIELD_VALUES {
            headers.try_reserve(SPARE_FIELDS)?;
        }
        Ok(headers)
    }
}

impl StoredFields {
    /// Returns the first value of a field.
    pub(super) fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
        let (_, value) = self.0.iter().find(|(field, _)| field == name.as_str())?;
        parse_value(value)
    }
}

fn parse_value(text: &str) -> Option<HeaderValue> {
    let sensitive = text.strip_prefix(SENSITIVE);
    let chars = sensitive.unwrap_or(text).chars();
    let bytes: Option<Vec<u8>> = chars.map(|c| u8::try_from(c).ok()).collect();
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(bytes?)).ok()?;
    value.set_sensitive(sensitive.is_some());
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_any_bytes_survive_the_encoding() {
        let mut headers = HeaderMap::new();
        for value in [&b"plain"[..], b"", b"\xff\x80caf\xe9", b"\"quoted\", \\"] {
            headers.append("x-any", HeaderValue::from_bytes(value).expect("a value"));
        }
        headers.append("content-type", HeaderValue::from_static("text/plain"));
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        headers.append("authorization", secret);
        let bytes = encode(&StoredFields::from(&headers), b"\0body");
        let (fields, body) = decode::<StoredFields>("subject", bytes).expect("encoded fields");
        let decoded = HeaderMap::try_from(fields).expect("a few fields");
        assert_eq!(decoded, headers);
        assert!(decoded["authorization"].is_sensitive() && !decoded["x-any"].is_sensitive());
        assert_eq!(body, &b"\0body"[..]);
    }

    #[test]
    fn other_bytes_are_rejected() {
        for bytes in [&b""[..], b"\x01", b"\x02\0\0\0\x02[]", b"\x01\0\0\0\x09[]"] {
            assert!(decode::<StoredFields>("subject", Bytes::copy_from_slice(bytes)).is_err());
        }
        let bytes = encode(&StoredFields::default(), b"");
        assert!(decode::<StoredFields>("subject", bytes.slice(..6)).is_err());
    }
}
