//! A request as it is stored until its job has ended.

use bytes::Bytes;
use http::{HeaderMap, request::Parts};

use super::options::SqliteOptions;
use crate::store::{MAX_FIELD_VALUES, StoredRequest};

/// A request as [`SqliteStore`](super::SqliteStore) keeps it until its job is accepted.
#[derive(Debug)]
pub struct SqliteRecord {
    /// The encoded head and trailers; `None` if another process could not decode them.
    pub(super) head: Option<Vec<u8>>,
    pub(super) body: Bytes,
    /// Set if the request may run again, even without a key.
    pub(super) may_rerun: bool,
    pub(super) may_rerun_with_key: bool,
}

impl SqliteRecord {
    pub(super) fn new(
        options: &SqliteOptions,
        head: &Parts,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Self {
        let stored = match &options.edit {
            None => StoredRequest::new(head, trailers, &options.carried),
            Some(edit) => {
                let mut edited = head.clone();
                edit.apply(&mut edited.headers);
                let mut trailers = trailers.cloned();
                if let Some(trailers) = &mut trailers {
                    edit.apply(trailers);
                }
                StoredRequest::new(&edited, trailers.as_ref(), &options.carried)
            }
        };
        let fields = trailers.map_or(0, HeaderMap::len).max(head.headers.len());
        let is_readable = fields <= MAX_FIELD_VALUES;
        Self {
            head: is_readable
                .then(|| serde_json::to_vec(&stored).ok())
                .flatten(),
            body: body.clone(),
            may_rerun: options.rerun.allows(&head.method, false),
            may_rerun_with_key: options.rerun.allows(&head.method, true),
        }
    }
}
