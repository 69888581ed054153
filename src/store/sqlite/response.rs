//! A response as it is stored.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::MaxSizeReached, response::Parts};
use serde::{Deserialize, Serialize};

use super::bodies::BodyFile;
use crate::{ResponseHead, store::StoredFields};

/// The fields of a response, as the table `response` has them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredHead {
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
    File(Arc<BodyFile>),
}

impl CompleteResponse {
    pub(super) fn new(
        head: &Parts,
        trailers: Option<&HeaderMap>,
        length: u64,
        body: CompleteBody,
    ) -> Result<Self, serde_json::Error> {
        let stored = StoredHead {
            status: head.status.as_u16(),
            headers: (&head.headers).into(),
            trailers: trailers.map(StoredFields::from),
        };
        Ok(Self {
            status: head.status,
            shown: ResponseHead::new(head.status, &head.headers, length),
            head: serde_json::to_vec(&stored)?,
            length,
            body,
        })
    }
}

impl StoredHead {
    /// Restores the response's head and its trailers.
    pub(super) fn into_head(self) -> Result<(Response<()>, Option<HeaderMap>), MaxSizeReached> {
        let mut response = Response::new(());
        let status = StatusCode::from_u16(self.status);
        *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers.try_into()?;
        let trailers = self.trailers.map(HeaderMap::try_from).transpose()?;
        Ok((response, trailers))
    }
}
