//! A response as it is stored.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::MaxSizeReached, response::Parts};
use serde::{Deserialize, Serialize};

use super::{error::SqliteError, output::FlushedOutput};
use crate::{ResponseHead, store::StoredFields};

/// The fields of a response, as the table `response` has them.
#[derive(Debug, Serialize, Deserialize)]
struct StoredHead {
    status: u16,
    headers: StoredFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trailers: Option<StoredFields>,
}

/// A complete response that is about to be stored.
#[derive(Debug)]
pub(super) struct CompleteResponse {
    pub(super) status: StatusCode,
    pub(super) shown: ResponseHead,
    /// The encoded [`StoredHead`].
    pub(super) head: Vec<u8>,
    pub(super) length: u64,
    pub(super) body: CompleteBody,
}

#[derive(Debug)]
pub(super) enum CompleteBody {
    Row(Bytes),
    /// Most of it has been written.
    Output(Arc<FlushedOutput>),
}

impl CompleteResponse {
    pub(super) fn new(
        head: &Parts,
        trailers: Option<&HeaderMap>,
        length: u64,
        body: CompleteBody,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            status: head.status,
            shown: ResponseHead::new(head.status, &head.headers, length),
            head: encode_head(head, trailers)?,
            length,
            body,
        })
    }
}

/// Encodes the fields of a response.
pub(super) fn encode_head(
    head: &Parts,
    trailers: Option<&HeaderMap>,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&StoredHead {
        status: head.status.as_u16(),
        headers: (&head.headers).into(),
        trailers: trailers.map(StoredFields::from),
    })
}

/// Decodes the head of a response, and its trailers.
pub(super) fn decode_head(
    encoded: &[u8],
) -> Result<(Response<()>, Option<HeaderMap>), SqliteError> {
    let unreadable = "a response's head";
    let stored: StoredHead =
        serde_json::from_slice(encoded).map_err(SqliteError::unreadable(unreadable))?;
    stored
        .into_head()
        .map_err(SqliteError::unreadable(unreadable))
}

impl StoredHead {
    fn into_head(self) -> Result<(Response<()>, Option<HeaderMap>), MaxSizeReached> {
        let mut response = Response::new(());
        let status = StatusCode::from_u16(self.status);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers.try_into()?;
        let trailers = self.trailers.map(HeaderMap::try_from).transpose()?;
        Ok((response, trailers))
    }
}
