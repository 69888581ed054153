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
    /// Stores everything of a response except the data of its body.
    pub(super) fn new(head: &Parts, body: &BufferedBody) -> Self {
        Self {
            status: head.status.as_u16(),
            headers: (&head.headers).into(),
            trailers: body.trailers.as_deref().map(StoredFields::from),
            body_bytes: body.bytes.len() as u64,
            chunks: None,
        }
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
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers.try_into()?;
        let trailers = self.trailers.map(HeaderMap::try_from).transpose()?;
        Ok((response, trailers))
    }
}
