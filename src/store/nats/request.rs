//! Requests as the queue stores them.

use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use serde::{Deserialize, Serialize};

use super::{clock::unix_millis, options::NatsOptions};
use crate::{
    Outcomes, Owner,
    store::{CallbackTarget, Key, MAX_FIELD_VALUES, NewJob, StoredRequest},
};

/// A request as [`NatsStore`](super::NatsStore) keeps it until its job is accepted.
#[derive(Debug)]
pub struct NatsRecord {
    head: StoredRequest,
    /// Set if a worker can rebuild the request's fields.
    pub(super) has_readable_fields: bool,
    pub(super) body: Bytes,
}

impl NatsRecord {
    pub(super) fn new(
        options: &NatsOptions,
        head: &Parts,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Self {
        let fields = trailers.map_or(0, HeaderMap::len).max(head.headers.len());
        Self {
            head: StoredRequest::new(head, trailers, &options.carried),
            has_readable_fields: fields <= MAX_FIELD_VALUES,
            body: body.clone(),
        }
    }
}

/// The facts that both a queued request and its job's record state about the job.
///
/// The record repeats them, so that a look-up needs one read, and because the request leaves the
/// queue when the job ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JobDetails {
    /// The name of the request's [`Kind`](crate::Kind).
    pub(super) kind: String,
    /// This and all other times are in milliseconds since the Unix epoch.
    pub(super) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) estimated_finish_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Key>,
    /// The outcomes that the key keeps.
    #[serde(rename = "key_keeps", default, skip_serializing_if = "is_all")]
    pub(super) outcomes: Outcomes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) callbacks: Option<Vec<CallbackTarget>>,
    /// The number of chunks of the request's body, if the queue's message does not hold it.
    #[serde(rename = "parts", default, skip_serializing_if = "Option::is_none")]
    pub(super) body_chunks: Option<u32>,
}

fn is_all(outcomes: &Outcomes) -> bool {
    *outcomes == Outcomes::All
}

/// The head of a message of the queue. Its body is the request's, unless that is in chunks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QueuedRequest {
    #[serde(flatten)]
    head: StoredRequest,
    #[serde(flatten)]
    pub(super) details: JobDetails,
    /// Set if the accepting process runs the request, before the queue delivers it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) begun_here: bool,
}

impl QueuedRequest {
    pub(super) fn new(new: &NewJob, request: &NatsRecord, body_chunks: Option<u32>) -> Self {
        Self {
            head: request.head.clone(),
            details: JobDetails {
                kind: new.kind.as_str().to_owned(),
                created_at: unix_millis(new.created_at),
                estimated_finish_at: new.estimated_finish.map(unix_millis),
                owner: new.owner,
                key: new.key.map(|new| new.key),
                outcomes: new.key.map(|new| new.outcomes).unwrap_or_default(),
                title: new.title.as_deref().map(str::to_owned),
                callbacks: new.callbacks.as_deref().map(<[_]>::to_vec),
                body_chunks,
            },
            begun_here: new.run_here,
        }
    }

    /// Returns `true` if the request may run again after its process has died.
    pub(super) fn may_rerun(&self, options: &NatsOptions) -> bool {
        let method = self.head.method();
        let has_key = self.details.key.is_some();
        method.is_ok_and(|method| options.rerun.allows(&method, has_key))
    }

    /// Restores the request's head and its trailers.
    pub(super) fn into_head(
        self,
        options: &NatsOptions,
    ) -> Result<(Parts, Option<HeaderMap>), http::Error> {
        self.head.into_head(&options.carried)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::{super::envelope::decode, *};

    #[test]
    fn requests_of_version_0_1_can_be_read() {
        let head = br#"{"method":"POST","uri":"/reports?q","version":20,
            "headers":[["content-type","text/plain"]],"trailers":[["x-sum","1"]],
            "carried":{"user":"me"},"kind":"POST /reports","created_at":1795000000120,
            "estimated_finish_at":1795000009120,"owner":"00112233445566778899aabbccddeeff",
            "key":"ffeeddccbbaa99887766554433221100","parts":3,"begun_here":true}"#;
        let length = u32::try_from(head.len())
            .expect("a short head")
            .to_be_bytes();
        let bytes = [&[1][..], &length, head, b"body"].concat();
        let (request, body) = decode::<QueuedRequest>("subject", bytes.into()).expect("a request");
        assert_eq!(body, &b"body"[..]);
        let details = &request.details;
        assert_eq!(
            (
                details.kind.as_str(),
                details.created_at,
                details.body_chunks
            ),
            ("POST /reports", 1_795_000_000_120, Some(3))
        );
        assert!(details.owner.is_some() && details.key.is_some() && request.begun_here);
        let (head, trailers) = request.into_head(&NatsOptions::new()).expect("a head");
        assert_eq!((head.method, head.version), (Method::POST, Version::HTTP_2));
        assert_eq!(head.headers["content-type"], "text/plain");
        assert_eq!(trailers.expect("trailers")["x-sum"], "1");
    }
}
