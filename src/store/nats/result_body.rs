//! The body of a large result, read chunk by chunk while it is sent.

use std::{future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;

use super::{
    charged::{charged, reserve_replay},
    chunks::MAX_CHUNK_BYTES,
    error::NatsError,
    messages,
    process::ProcessState,
    response::ResultChunks,
    retry::Retry,
};
use crate::{JobId, store::ResultBody};

/// The time limit for the retries of a chunk after the first: longer than a leader election. The
/// client has the head by then, so giving up breaks the response.
const CHUNK_PATIENCE: Duration = Duration::from_secs(30);

/// Reads the chunks of a result, from one byte of its body on.
pub(super) struct ResultReader {
    process: Arc<ProcessState>,
    id: JobId,
    chunks: ResultChunks,
    /// The length of the whole body.
    length: u64,
    /// The next byte to read.
    offset: u64,
}

impl ResultReader {
    pub(super) fn new(
        process: Arc<ProcessState>,
        id: JobId,
        chunks: ResultChunks,
        length: u64,
        from: u64,
    ) -> Self {
        Self {
            process,
            id,
            chunks,
            length,
            offset: from,
        }
    }

    /// Reads the first chunk, so that its failure is an error of the whole read. The body reads the
    /// others when they are due.
    ///
    /// Returns `None` if the chunk is certain to be missing.
    pub(super) async fn into_body(
        mut self,
        trailers: Option<HeaderMap>,
    ) -> Result<Option<ResultBody>, NatsError> {
        let left = self.length - self.offset;
        let Some(first) = self.next().await? else {
            return Ok(None);
        };
        let others = stream::unfold(Some(self), async |reader| {
            let mut reader = reader?;
            if reader.offset >= reader.length {
                return None;
            }
            match reader.next_with_retries().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(reader))),
                Ok(None) => Some((Err(NatsError::unavailable("a chunk is missing")), None)),
                Err(error) => Some((Err(error), None)),
            }
        });
        let first = stream::once(ready(Ok(first)));
        let chunks = first.chain(others).fuse();
        Ok(Some(ResultBody::from_stream(chunks, left, trailers)))
    }

    /// Reads the next chunk, and tries again while the servers do not answer.
    async fn next_with_retries(&mut self) -> Result<Option<Bytes>, NatsError> {
        let mut retry = Retry::within(CHUNK_PATIENCE);
        loop {
            match self.next().await {
                Err(error @ NatsError::Unavailable(_)) => {
                    let subject = &self.process.jetstream.options.prefix;
                    retry.wait(error, subject).await?;
                }
                read => return read,
            }
        }
    }

    /// Reads the rest of the chunk that holds the next byte.
    async fn next(&mut self) -> Result<Option<Bytes>, NatsError> {
        let size = match self.chunks.size {
            Some(size) => size,
            None => {
                let Some(first) = self.chunk(0, MAX_CHUNK_BYTES as u64).await? else {
                    return Ok(None);
                };
                let size = u32::try_from(first.len()).unwrap_or(u32::MAX);
                *self.chunks.size.insert(size)
            }
        };
        let size = u64::from(size.max(1));
        let index = u32::try_from(self.offset / size).unwrap_or(u32::MAX);
        let start = u64::from(index) * size;
        let bytes = size.min(self.length - start);
        let chunk = self.chunk(index, bytes).await?;
        let skipped = usize::try_from(self.offset - start).unwrap_or(usize::MAX);
        Ok(chunk
            .filter(|chunk| chunk.len() as u64 == bytes)
            .map(|chunk| {
                self.offset = start + bytes;
                chunk.slice(skipped..)
            }))
    }

    /// Reads a chunk, once the budget has room for so many bytes.
    async fn chunk(&self, index: u32, bytes: u64) -> Result<Option<Bytes>, NatsError> {
        let jetstream = &self.process.jetstream;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let charge = reserve_replay(&jetstream.budget, bytes).await?;
        let subject = jetstream
            .names
            .result_chunk(self.id, self.chunks.claim, index);
        let stream = &jetstream.streams.results;
        let barrier = &jetstream.result_barrier;
        let found = barrier
            .read(async || messages::last(stream, &subject).await)
            .await?;
        Ok(found.map(|message| charged(message.payload, charge)))
    }
}
