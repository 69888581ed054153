//! How requests and jobs are written: a version, a head in JSON, a body as it is.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::NatsError;

/// The first byte of everything that is written. A reader refuses any other.
const VERSION: u8 = 1;

/// The version, and the length of the head as four bytes.
const PRELUDE: usize = 5;

pub(super) fn seal(head: &impl Serialize, body: &[u8]) -> Bytes {
    let mut bytes = vec![VERSION, 0, 0, 0, 0];
    serde_json::to_writer(&mut bytes, head).expect("texts, numbers and what serde_json made");
    let length = u32::try_from(bytes.len() - PRELUDE).expect("a head of less than 4 GiB");
    bytes[1..PRELUDE].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

pub(super) fn open<T: DeserializeOwned>(
    subject: &str,
    mut bytes: Bytes,
) -> Result<(T, Bytes), NatsError> {
    let unreadable = |why: &'static str| NatsError::unreadable(subject, why);
    if bytes.first() != Some(&VERSION) {
        return Err(unreadable("not of version 1"));
    }
    if bytes.len() < PRELUDE {
        return Err(unreadable("cut off"));
    }
    let prelude = bytes.split_to(PRELUDE);
    let length = u32::from_be_bytes([prelude[1], prelude[2], prelude[3], prelude[4]]) as usize;
    if bytes.len() < length {
        return Err(unreadable("cut off"));
    }
    let head = bytes.split_to(length);
    let head =
        serde_json::from_slice(&head).map_err(|error| NatsError::unreadable(subject, error))?;
    Ok((head, bytes))
}

/// Header fields as JSON: a value's bytes are the characters of the same numbers, so that any value
/// is a text, and those that people read look as they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StoredFields(Vec<(String, String)>);

impl From<&HeaderMap> for StoredFields {
    fn from(headers: &HeaderMap) -> Self {
        let fields = headers.iter().map(|(name, value)| {
            let value = value.as_bytes().iter().map(|&byte| char::from(byte));
            (name.as_str().to_owned(), value.collect())
        });
        Self(fields.collect())
    }
}

impl From<StoredFields> for HeaderMap {
    /// Leaves out what no field can be, which was never written.
    fn from(fields: StoredFields) -> Self {
        let mut headers = Self::with_capacity(fields.0.len());
        for (name, value) in fields.0 {
            if let (Ok(name), Some(value)) = (HeaderName::try_from(name), value_of(&value)) {
                headers.append(name, value);
            }
        }
        headers
    }
}

impl StoredFields {
    /// The value of a field, if it is text.
    pub(super) fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
        let (_, value) = self.0.iter().find(|(is, _)| is == name.as_str())?;
        value_of(value)
    }
}

fn value_of(text: &str) -> Option<HeaderValue> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    HeaderValue::from_maybe_shared(Bytes::from(bytes?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_any_bytes_come_back_as_they_were() {
        let mut headers = HeaderMap::new();
        for value in [&b"plain"[..], b"", b"\xff\x80caf\xe9", b"\"quoted\", \\"] {
            headers.append("x-any", HeaderValue::from_bytes(value).expect("a value"));
        }
        headers.append("content-type", HeaderValue::from_static("text/plain"));
        let sealed = seal(&StoredFields::from(&headers), b"\0body");
        let (fields, body) = open::<StoredFields>("there", sealed).expect("as it was sealed");
        assert_eq!(HeaderMap::from(fields), headers);
        assert_eq!(body, &b"\0body"[..]);
    }

    #[test]
    fn what_was_not_sealed_is_not_opened() {
        let sealed = seal(&StoredFields::default(), b"");
        for bytes in [&b""[..], b"\x01", b"\x02\0\0\0\x02[]", b"\x01\0\0\0\x09[]"] {
            assert!(open::<StoredFields>("there", Bytes::copy_from_slice(bytes)).is_err());
        }
        assert!(open::<StoredFields>("there", sealed.slice(..6)).is_err());
    }
}
