//! Parts of a response that is published while it is produced.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    envelope::{decode, encode},
    error::NatsError,
    messages::StoredMessage,
    names::ResourceNames,
    response::ResponseRecord,
};
use crate::{ErrorCode, JobId};

/// Identifies the output of one call: the response that it produces under one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutputId {
    pub(super) job: JobId,
    pub(super) claim: u64,
}

impl OutputId {
    pub(super) fn subject(self, names: &ResourceNames, index: u32) -> String {
        names.part(self.job, self.claim, index)
    }
}

/// The part of an output that comes before its body. The first part holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OutputStart {
    /// The number of the call.
    pub(super) run: u32,
    /// The number of bytes that the service declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) length: Option<u64>,
    pub(super) response: ResponseRecord,
}

/// The head of a part. Its data follows.
#[derive(Debug, Serialize, Deserialize)]
struct PartHead {
    /// The offset of the first byte in the whole body.
    #[serde(rename = "at")]
    offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<OutputStart>,
    /// Present in a message that takes the place of the next part, so that there is none: why the
    /// job is to end.
    #[serde(rename = "sealed", default, skip_serializing_if = "Option::is_none")]
    seal: Option<ErrorCode>,
}

/// A part as read from the stream.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) start: Option<OutputStart>,
    /// Present if this is no part, but ends the output.
    pub(super) seal: Option<ErrorCode>,
    pub(super) data: Bytes,
}

impl Part {
    /// Returns the offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    pub(super) fn decode(subject: &str, payload: Bytes) -> Result<Self, NatsError> {
        let (head, data) = decode::<PartHead>(subject, payload)?;
        Ok(Self {
            offset: head.offset,
            start: head.start,
            seal: head.seal,
            data,
        })
    }
}

impl TryFrom<StoredMessage> for Part {
    type Error = NatsError;

    fn try_from(message: StoredMessage) -> Result<Self, NatsError> {
        Self::decode(&message.subject, message.payload)
    }
}

pub(super) fn encode_part(offset: u64, start: Option<&OutputStart>, data: &[u8]) -> Bytes {
    let head = PartHead {
        offset,
        start: start.cloned(),
        seal: None,
    };
    encode(&head, data)
}

pub(super) fn encode_seal(offset: u64, code: ErrorCode) -> Bytes {
    let head = PartHead {
        offset,
        start: None,
        seal: Some(code),
    };
    encode(&head, b"")
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn part_survives_its_encoding() {
        let (head, ()) = Response::builder()
            .status(201)
            .header("x-any", "\u{e9}")
            .body(())
            .expect("a response")
            .into_parts();
        let start = OutputStart {
            run: 2,
            length: Some(9),
            response: ResponseRecord::new(&head),
        };
        let payload = encode_part(0, Some(&start), b"\0data");
        let part = Part::decode("subject", payload).expect("a part");
        let start = part.start.as_ref().expect("the start");
        assert_eq!((start.run, start.length), (2, Some(9)));
        assert_eq!(start.response.status(), 201);
        assert_eq!(
            (part.offset, part.end(), part.seal, &part.data[..]),
            (0, 5, None, &b"\0data"[..])
        );
        let seal = Part::decode("subject", encode_seal(7, ErrorCode::Lost)).expect("a seal");
        assert_eq!(
            (seal.offset, seal.end(), seal.seal),
            (7, 7, Some(ErrorCode::Lost))
        );
    }
}
