//! Stores results: within the record of the job's end, or in chunks if they are large.

use std::time::Duration;

use bytes::Bytes;

use super::{
    chunks,
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    response::{ResponseRecord, ResultChunks},
};
use crate::JobId;

impl JetStream {
    /// Prepares a response for the record of the job's end, and writes a large body in chunks.
    ///
    /// Returns the response, and the body that goes into the record.
    pub(super) async fn store_result(
        &self,
        id: JobId,
        claim: u64,
        mut stored: ResponseRecord,
        body: &Bytes,
        patience: Duration,
    ) -> Result<(ResponseRecord, Bytes), WriteError> {
        if body.len() <= self.max_inline_bytes() {
            return Ok((stored, body.clone()));
        }
        let subject = |index| self.names.result_chunk(id, claim, index);
        let size = self.chunk_bytes();
        let count = chunks::write(&self.context, subject, body, size, patience).await?;
        let size = u32::try_from(size).ok();
        stored.chunks = Some(ResultChunks { claim, count, size });
        Ok((stored, Bytes::new()))
    }

    /// Removes a large result.
    pub(super) async fn remove_result(
        &self,
        id: JobId,
        chunks: ResultChunks,
    ) -> Result<(), NatsError> {
        let subject = |index| self.names.result_chunk(id, chunks.claim, index);
        chunks::remove(&self.streams.results, subject, chunks.count).await
    }
}
