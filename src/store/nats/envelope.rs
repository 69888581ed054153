//! The encoding of requests and records: a version, a head in JSON and a raw body.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::error::NatsError;

/// The first byte of a message. Messages with an unknown version are rejected.
const VERSION: u8 = 1;

/// The version of a record whose result is in parts, which earlier versions would misread.
const STREAMED_VERSION: u8 = 2;

/// The bytes before the head: the version, then the head's length as a big-endian `u32`.
const PRELUDE_BYTES: usize = 5;

pub(super) fn encode(head: &impl Serialize, body: &[u8]) -> Bytes {
    encode_as(VERSION, head, body)
}

/// Encodes a record whose result is in parts.
pub(super) fn encode_streamed(head: &impl Serialize, body: &[u8]) -> Bytes {
    encode_as(STREAMED_VERSION, head, body)
}

fn encode_as(version: u8, head: &impl Serialize, body: &[u8]) -> Bytes {
    let mut bytes = vec![version, 0, 0, 0, 0];
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
    if !matches!(bytes.first(), Some(&(VERSION | STREAMED_VERSION))) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_body_survive_the_encoding() {
        let bytes = encode(&["a head"], b"\0body");
        let (head, body) = decode::<Vec<String>>("subject", bytes).expect("an encoded head");
        assert_eq!(
            (head, &body[..]),
            (vec!["a head".to_owned()], &b"\0body"[..])
        );
    }

    #[test]
    fn other_bytes_are_rejected() {
        for bytes in [&b""[..], b"\x01", b"\x03\0\0\0\x02[]", b"\x01\0\0\0\x09[]"] {
            assert!(decode::<Vec<String>>("subject", Bytes::copy_from_slice(bytes)).is_err());
        }
        let bytes = encode(&Vec::<String>::new(), b"");
        assert!(decode::<Vec<String>>("subject", bytes.slice(..6)).is_err());
    }
}
