//! The response of an ended job as its record stores it.

use http::{
    HeaderMap, Response, StatusCode,
    header::{self, MaxSizeReached},
    response::Parts,
};
use serde::{Deserialize, Serialize};

use crate::{
    ResponseHead,
    store::{BufferedBody, StoredFields},
};

/// A response without its body. The body follows the record in the same message, or is in chunks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ResponseRecord {
    status: u16,
    headers: StoredFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trailers: Option<StoredFields>,
    /// The length of the body, in bytes.
    #[serde(rename = "length")]
    pub(super) body_bytes: u64,
    #[serde(rename = "parts", default, skip_serializing_if = "Option::is_none")]
    pub(super) chunks: Option<ResultChunks>,
    /// Present if the body was published while it was produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) streamed: Option<StreamedParts>,
}

/// The location of a body that was published in parts of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamedParts {
    /// The claim of the call that produced it.
    pub(super) claim: u64,
    pub(super) count: u32,
}

/// The location of a result's chunks.
///
/// The claim is part of their subjects: two processes that both believe to own the job do not
/// overwrite each other's chunks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ResultChunks {
    pub(super) claim: u64,
    pub(super) count: u32,
    /// The size of each chunk except the last, in bytes. Version 0.1 did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u32>,
}

impl ResponseRecord {
    /// Stores the head of a response that has no body yet.
    pub(super) fn new(head: &Parts) -> Self {
        Self {
            status: head.status.as_u16(),
            headers: (&head.headers).into(),
            trailers: None,
            body_bytes: 0,
            chunks: None,
            streamed: None,
        }
    }

    /// Adds everything of a body except its data.
    pub(super) fn with_body(mut self, body: &BufferedBody) -> Self {
        self.body_bytes = body.bytes.len() as u64;
        self.with_trailers(body.trailers.as_deref())
    }

    pub(super) fn with_trailers(mut self, trailers: Option<&HeaderMap>) -> Self {
        self.trailers = trailers.map(StoredFields::from);
        self
    }

    /// Adds a body of so many bytes that was published in parts.
    pub(super) fn with_parts(mut self, body_bytes: u64, parts: StreamedParts) -> Self {
        self.body_bytes = body_bytes;
        self.streamed = Some(parts);
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns the part of the response that a snapshot shows.
    pub(super) fn head(&self) -> ResponseHead {
        let names = [header::CONTENT_TYPE, header::RETRY_AFTER];
        let fields = names
            .into_iter()
            .filter_map(|name| self.headers.get(&name).map(|value| (name, value)));
        ResponseHead::new(
            self.status(),
            &HeaderMap::from_iter(fields),
            self.body_bytes,
        )
    }

    /// Restores the response's head and its trailers.
    pub(super) fn into_head(self) -> Result<(Response<()>, Option<HeaderMap>), MaxSizeReached> {
        let trailers = self.trailers()?;
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers.try_into()?;
        Ok((response, trailers))
    }

    /// Restores the trailers.
    pub(super) fn trailers(&self) -> Result<Option<HeaderMap>, MaxSizeReached> {
        self.trailers.clone().map(HeaderMap::try_from).transpose()
    }
}
