//! The queue: one request per unfinished job.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::{
    envelope::decode,
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
    names::ResourceNames,
    request::QueuedRequest,
};
use crate::JobId;

/// The number of requests that are read concurrently.
const READ_CONCURRENCY: usize = 32;

/// A request in the queue.
#[derive(Debug)]
pub(super) struct QueueEntry {
    pub(super) request: QueuedRequest,
    pub(super) sequence: u64,
}

impl JetStream {
    /// Adds a request. The queue may hold it twice if an acknowledgement is lost; the process that
    /// gets the second message detects that.
    ///
    /// The write has no condition on purpose. Each replica removes acknowledged messages of a work
    /// queue by itself, so one replica may see the first copy as a conflict and another may not. Up
    /// to nats-server 2.11 each replica decides for itself, and the replicas differ from then on.
    pub(super) async fn enqueue(&self, id: JobId, payload: &Bytes) -> Result<u64, WriteError> {
        self.publish(&self.names.queued(id), None, payload).await
    }

    /// Reads a job's request.
    pub(super) async fn queue_entry(&self, id: JobId) -> Result<Option<QueueEntry>, NatsError> {
        let subject = self.names.queued(id);
        let Some(message) = messages::last(&self.streams.queue, &subject).await? else {
            return Ok(None);
        };
        let (request, _) = decode(&subject, message.payload)?;
        let sequence = message.sequence;
        Ok(Some(QueueEntry { request, sequence }))
    }

    /// Removes a job's request, if the leader knows of it.
    pub(super) async fn remove_from_queue(&self, id: JobId) -> Result<(), NatsError> {
        match self.queue_entry(id).await? {
            Some(entry) => messages::delete(&self.streams.queue, entry.sequence).await,
            None => Ok(()),
        }
    }

    /// Reads all requests, running ones included, in no particular order.
    pub(super) async fn queue_entries(
        &self,
    ) -> Result<impl Stream<Item = Result<(JobId, QueueEntry), NatsError>>, NatsError> {
        let subjects = self.names.all_queued();
        let subjects = self.streams.queue.info_with_subjects(subjects).await;
        let subjects = subjects.map_err(NatsError::unavailable)?;
        let entries = subjects.map(async |subject| {
            let (subject, _) = subject.map_err(NatsError::unavailable)?;
            let Some(id) = ResourceNames::job_id(&subject) else {
                return Ok(None);
            };
            let entry = self.queue_entry(id).await?;
            Ok(entry.map(|entry| (id, entry)))
        });
        Ok(entries
            .buffer_unordered(READ_CONCURRENCY)
            .try_filter_map(async |entry| Ok(entry)))
    }
}
