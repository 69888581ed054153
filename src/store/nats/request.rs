use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    clock::millis,
    envelope::StoredFields,
    options::{NatsOptions, Rerun},
    record::JobRecord,
};
use crate::{
    config::Key,
    job::{JobId, Owner, Snapshot},
    store::NewJob,
};

/// A request from before its call: what [`NatsStore`](super::NatsStore) keeps of it.
#[derive(Debug)]
pub struct NatsRecord {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) carried: Map<String, Value>,
    pub(super) body: Bytes,
}

impl NatsRecord {
    pub(super) fn new(
        options: &NatsOptions,
        head: &Parts,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            trailers: trailers.cloned(),
            carried: options.pack(&head.extensions),
            body: body.clone(),
        }
    }
}

/// A request as it is in the queue. Its body follows it, or is in parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QueuedRequest {
    pub(super) method: String,
    uri: String,
    version: u8,
    headers: StoredFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trailers: Option<StoredFields>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    carried: Map<String, Value>,
    /// What kind of request it is.
    pub(super) kind: String,
    /// This and all times: milliseconds since the epoch of Unix.
    pub(super) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) estimated_finish_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<u32>,
    /// Whether the process that took it runs it, before any worker is handed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) begun_here: bool,
}

impl QueuedRequest {
    pub(super) fn new(new: &NewJob, request: &NatsRecord, parts: Option<u32>) -> Self {
        Self {
            method: request.method.as_str().to_owned(),
            uri: request.uri.to_string(),
            version: match request.version {
                Version::HTTP_09 => 9,
                Version::HTTP_10 => 10,
                Version::HTTP_2 => 20,
                Version::HTTP_3 => 30,
                _ => 11,
            },
            headers: (&request.headers).into(),
            trailers: request.trailers.as_ref().map(StoredFields::from),
            carried: request.carried.clone(),
            kind: new.kind.as_str().to_owned(),
            created_at: millis(new.created_at),
            estimated_finish_at: new.estimated_finish.map(millis),
            owner: new.owner,
            key: new.key.map(|(key, _)| key),
            parts,
            begun_here: new.run_here,
        }
    }

    /// Whether it may be run again when whoever ran it is gone.
    pub(super) fn may_rerun(&self, options: &NatsOptions) -> bool {
        match options.rerun {
            Rerun::Always => true,
            Rerun::Never => false,
            Rerun::Idempotent => {
                let method = Method::try_from(self.method.as_str());
                self.key.is_some() || method.is_ok_and(|method| method.is_idempotent())
            }
        }
    }

    /// The job while it waits.
    pub(super) fn snapshot(&self, id: JobId) -> Snapshot {
        JobRecord::queued(self).snapshot(id)
    }

    /// The request as it came, and its trailers.
    pub(super) fn into_head(
        self,
        options: &NatsOptions,
    ) -> Result<(Parts, Option<HeaderMap>), http::Error> {
        let request = Request::builder()
            .method(self.method.as_str())
            .uri(self.uri)
            .version(match self.version {
                9 => Version::HTTP_09,
                10 => Version::HTTP_10,
                20 => Version::HTTP_2,
                30 => Version::HTTP_3,
                _ => Version::HTTP_11,
            })
            .body(())?;
        let (mut head, ()) = request.into_parts();
        head.headers = self.headers.into();
        options.unpack(self.carried, &mut head.extensions);
        Ok((head, self.trailers.map(HeaderMap::from)))
    }
}
