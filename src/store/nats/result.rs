//! Results: stored within the record of the job's end, or in chunks if they are large.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::{
    chunks,
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    response::{ResultChunks, StoredResponse},
};
use crate::{JobId, Replay, store::Collected};

impl JetStream {
    /// Prepares a response for the record of the job's end, and writes a large body in chunks.
    ///
    /// Returns the stored response, and the body that goes into the record.
    pub(super) async fn store_result(
        &self,
        id: JobId,
        claim: u64,
        response: Response<Collected>,
        patience: Duration,
    ) -> Result<(StoredResponse, Bytes), WriteError> {
        let mut stored = StoredResponse::new(&response);
        let body = response.into_body().bytes;
        if body.len() <= self.max_inline_bytes() {
            return Ok((stored, body));
        }
        let subject = |index| self.names.result_chunk(id, claim, index);
        let size = self.chunk_bytes();
        let count = chunks::write(&self.context, subject, &body, size, patience).await?;
        stored.chunks = Some(ResultChunks { claim, count });
        Ok((stored, Bytes::new()))
    }

    /// Reads the response of an ended job. A body from chunks is charged to the budget until it is
    /// sent.
    pub(super) async fn read_result(
        &self,
        id: JobId,
    ) -> Result<Option<Response<Replay>>, NatsError> {
        let Some((stored, inline)) = self.stored_response(id).await? else {
            return Ok(None);
        };
        let body = match stored.chunks {
            None => inline,
            Some(chunks) => {
                let length = usize::try_from(stored.body_bytes).unwrap_or(usize::MAX);
                let Some(charge) = self.budget.reserve(length) else {
                    return Err(NatsError::unavailable("no memory budget for a result"));
                };
                match self.read_result_chunks(id, chunks).await? {
                    Some(body) => charge.hold(body),
                    // Gone with its job, or lost by itself.
                    None if self.stored_response(id).await?.is_none() => return Ok(None),
                    None => return Err(NatsError::unavailable("the result's body is missing")),
                }
            }
        };
        let (response, trailers) = stored.into_head();
        Ok(Some(response.map(|()| Replay::new(body, trailers))))
    }

    /// Removes a large result.
    pub(super) async fn remove_result(
        &self,
        id: JobId,
        ResultChunks { claim, count }: ResultChunks,
    ) -> Result<(), NatsError> {
        let subject = |index| self.names.result_chunk(id, claim, index);
        chunks::remove(&self.streams.results, subject, count).await
    }

    /// Reads the response that a job ended with, and its body if the record holds it.
    async fn stored_response(
        &self,
        id: JobId,
    ) -> Result<Option<(StoredResponse, Bytes)>, NatsError> {
        let found = self.job_barrier.read(|| self.record(id)).await?;
        let found = found.filter(|found| !found.record.forgotten && !found.record.is_expired());
        Ok(found.and_then(|found| Some((found.record.response?, found.body))))
    }

    /// Reads a large result. Returns `None` if it has expired.
    async fn read_result_chunks(
        &self,
        id: JobId,
        ResultChunks { claim, count }: ResultChunks,
    ) -> Result<Option<Bytes>, NatsError> {
        let subject = |index| self.names.result_chunk(id, claim, index);
        let body = chunks::read(&self.streams.results, &self.result_barrier, subject, count);
        Ok(body.await?.map(|body| body.bytes))
    }
}
