//! Large bodies, split into messages.

use std::time::Duration;

use async_nats::jetstream::{context::Context, stream::Stream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    barrier::Barrier,
    error::NatsError,
    messages::{self, WriteError},
};

/// The maximum number of chunks of one body in flight.
const CONCURRENCY: usize = 8;

/// The maximum size of a chunk, in bytes. Larger messages need servers configured for them.
pub(super) const MAX_CHUNK_BYTES: usize = 256 << 10;

/// The maximum number of copies of a chunk: each lost acknowledgement causes another write.
const MAX_COPIES: usize = 4;

/// A body that was read from its chunks.
pub(super) struct AssembledBody {
    pub(super) bytes: Bytes,
    /// The sequences of the chunks.
    pub(super) sequences: Vec<u64>,
}

/// Returns the number of chunks of `size` bytes that a body needs.
pub(super) fn count(body: &Bytes, size: usize) -> u32 {
    u32::try_from(body.len().div_ceil(size)).unwrap_or(u32::MAX)
}

/// Writes a body in chunks of `size` bytes. Returns their number.
///
/// The object store of async-nats is no alternative. It leaves a marker for each removed object,
/// and creates a consumer for each read.
pub(super) async fn write(
    context: &Context,
    subject: impl Fn(u32) -> String,
    body: &Bytes,
    size: usize,
    patience: Duration,
) -> Result<u32, WriteError> {
    let count = count(body, size);
    let subject = &subject;
    let writes = (0..count).map(|index| async move {
        let start = index as usize * size;
        let chunk = body.slice(start..body.len().min(start + size));
        messages::publish(context, &subject(index), None, None, &chunk, patience).await
    });
    let mut writes = stream::iter(writes).buffer_unordered(CONCURRENCY);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(count)
}

/// Reads a body. Returns `None` if a chunk is certain to be missing.
pub(super) async fn read(
    stream: &Stream<()>,
    barrier: &Barrier,
    subject: impl Fn(u32) -> String,
    count: u32,
) -> Result<Option<AssembledBody>, NatsError> {
    let subject = &subject;
    let reads = (0..count).map(|index| async move {
        let subject = subject(index);
        barrier
            .read(async || messages::last(stream, &subject).await)
            .await
    });
    let mut chunks = stream::iter(reads).buffered(CONCURRENCY);
    let (mut bytes, mut sequences) = (BytesMut::new(), Vec::new());
    while let Some(chunk) = chunks.try_next().await? {
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        bytes.extend_from_slice(&chunk.payload);
        sequences.push(chunk.sequence);
    }
    let bytes = bytes.freeze();
    Ok(Some(AssembledBody { bytes, sequences }))
}

/// Removes the chunks at these sequences.
pub(super) async fn remove_at(stream: &Stream<()>, sequences: Vec<u64>) -> Result<(), NatsError> {
    let deletes = sequences
        .into_iter()
        .map(|sequence| messages::delete(stream, sequence));
    let deletes = stream::iter(deletes).buffer_unordered(CONCURRENCY);
    deletes.try_collect().await
}

/// Removes a body, message by message.
///
/// A purge of the subjects would be shorter, but nats-server up to 2.9.17 may then lose data. If a
/// server is killed and replays the purge, it removes every older message of the stream
/// (nats-server #4196).
pub(super) async fn remove(
    stream: &Stream<()>,
    subject: impl Fn(u32) -> String,
    count: u32,
) -> Result<(), NatsError> {
    // From the end, so that the chunks that a failure leaves are still the first ones.
    let removals = (0..count).rev().map(|index| {
        let subject = subject(index);
        async move {
            // A replaced leader may keep returning a deleted chunk. Copies left here expire.
            for _ in 0..MAX_COPIES {
                match messages::last(stream, &subject).await? {
                    Some(chunk) => messages::delete(stream, chunk.sequence).await?,
                    None => break,
                }
            }
            Ok(())
        }
    });
    let removals = stream::iter(removals).buffer_unordered(CONCURRENCY);
    removals.try_collect().await
}
