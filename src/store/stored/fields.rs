//! Header fields in a form that can be stored.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::MaxSizeReached};
use serde::{Deserialize, Serialize};

use crate::limit::MAX_FIELD_VALUES;

/// The room for the fields that a replay adds.
const SPARE_FIELDS: usize = 64;

/// The first character of a sensitive value. No byte of a value becomes this character.
const SENSITIVE: char = '\u{100}';

/// Header fields in a form that can be stored.
///
/// They serialize as a list of pairs. Each byte of a value becomes the character of the same
/// number. So every value is valid JSON, and ASCII values stay readable. A sensitive value stays
/// sensitive.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredFields(Vec<(String, String)>);

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
    /// Fails if a map has no room for so many fields.
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
    pub fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
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
        let json = serde_json::to_string(&StoredFields::from(&headers)).expect("JSON");
        let fields: StoredFields = serde_json::from_str(&json).expect("fields");
        let decoded = HeaderMap::try_from(fields).expect("a few fields");
        assert_eq!(decoded, headers);
        assert!(decoded["authorization"].is_sensitive() && !decoded["x-any"].is_sensitive());
    }
}
