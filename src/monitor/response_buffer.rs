//! A document and the field values of its response, in one buffer.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use super::document::linked_document;
use crate::{
    config::{LinkOrigin, Settings},
    job::{IdText, Snapshot},
    store::ResultBody,
};

/// A status document and the field values of its response, while they are written.
///
/// Body and fields share one buffer, so a response takes one allocation for all of them.
pub(super) struct ResponseBuffer {
    text: Vec<u8>,
    document_len: usize,
    pub(super) id: IdText,
}

impl ResponseBuffer {
    pub(super) fn new(job: &Snapshot, settings: &Settings) -> Self {
        let id = job.id.encode();
        let text = linked_document(LinkOrigin::Document, &id, job, settings);
        Self {
            document_len: text.len(),
            text,
            id,
        }
    }

    pub(super) fn document_len(&self) -> u64 {
        self.document_len as u64
    }

    /// Appends text, and returns its range.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.text.len();
        write(&mut self.text);
        start..self.text.len()
    }

    /// Appends a number, and returns its range.
    pub(super) fn add_number(&mut self, number: u64) -> Range<usize> {
        self.add(|text| write_number(text, number))
    }

    pub(super) fn finish(self) -> FrozenBuffer {
        FrozenBuffer {
            document_len: self.document_len,
            text: self.text.into(),
        }
    }
}

/// A [`ResponseBuffer`] that is complete.
pub(super) struct FrozenBuffer {
    text: Bytes,
    document_len: usize,
}

impl FrozenBuffer {
    pub(super) fn body(&self) -> ResultBody {
        ResultBody::new(self.text.slice(..self.document_len), None)
    }

    pub(super) fn value(&self, text: Range<usize>) -> HeaderValue {
        let value = HeaderValue::from_maybe_shared(self.text.slice(text));
        value.expect("links, tags and numbers are field values")
    }
}

pub(super) fn write_number(to: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(to, &number).expect("numbers can be written");
}
