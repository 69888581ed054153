//! Cleans up when a job has ended.

use super::{error::NatsError, jetstream::JetStream, record::JobRecord};
use crate::JobId;

impl JetStream {
    /// Rewrites the job's key and list entry, whose retention starts at the end, and removes the
    /// request's body. A key that the end has freed is removed instead.
    ///
    /// Runs before the request leaves the queue, so that a failure is repaired when the queue
    /// delivers the request again. Can be repeated.
    pub(super) async fn clean_up(&self, id: JobId, record: &JobRecord) -> Result<(), NatsError> {
        if record.frees_key() {
            self.remove_key(id, &record.details).await?;
        }
        if !record.forgotten {
            self.end_index(id, &record.details).await?;
        }
        match record.details.body_chunks {
            Some(count) => self.remove_request_body(id, count).await,
            None => Ok(()),
        }
    }
}
