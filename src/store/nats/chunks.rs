//! Large bodies, cut into messages of a stream of their own.
//!
//! Not an object store of async-nats: that leaves a marker of each object that was removed, and makes a
//! consumer for each that is read.

use std::time::Duration;

use async_nats::jetstream::{context::Context, stream::Stream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    NatsError,
    barrier::Barrier,
    messages::{self, WriteError},
};

/// How many parts of a body are on their way at a time.
const AT_ONCE: usize = 8;

/// How large a part is at most: messages of more are for servers that are set up for them.
pub(super) const LARGEST: usize = 256 << 10;

/// In how many parts of a size a body is.
pub(super) fn count(body: &Bytes, size: usize) -> u32 {
    u32::try_from(body.len().div_ceil(size)).unwrap_or(u32::MAX)
}

/// Writes a body, and returns in how many parts.
pub(super) async fn write(
    context: &Context,
    subject: impl Fn(u32) -> String,
    body: &Bytes,
    size: usize,
    patience: Duration,
) -> Result<u32, WriteError> {
    let count = count(body, size);
    let subject = &subject;
    let writing = (0..count).map(|part| async move {
        let start = part as usize * size;
        let bytes = body.slice(start..body.len().min(start + size));
        messages::write(context, &subject(part), None, None, &bytes, patience).await
    });
    let mut writing = stream::iter(writing).buffer_unordered(AT_ONCE);
    while let Some(written) = writing.next().await {
        written?;
    }
    Ok(count)
}

/// A body as it was read.
pub(super) struct AssembledBody {
    pub(super) bytes: Bytes,
    /// Where its parts are.
    pub(super) places: Vec<u64>,
}

/// Reads a body; `None` where a part of it is certainly gone.
pub(super) async fn read(
    stream: &Stream<()>,
    barrier: &Barrier,
    subject: impl Fn(u32) -> String,
    count: u32,
) -> Result<Option<AssembledBody>, NatsError> {
    let subject = &subject;
    let reading = (0..count).map(|part| async move {
        let subject = subject(part);
        barrier
            .read(async || messages::last(stream, &subject).await)
            .await
    });
    let mut parts = stream::iter(reading).buffered(AT_ONCE);
    let (mut bytes, mut places) = (BytesMut::new(), Vec::new());
    while let Some(part) = parts.try_next().await? {
        match part {
            Some(part) => {
                bytes.extend_from_slice(&part.payload);
                places.push(part.sequence);
            }
            None => return Ok(None),
        }
    }
    let bytes = bytes.freeze();
    Ok(Some(AssembledBody { bytes, places }))
}

/// Removes the parts of a body that are in these places.
pub(super) async fn remove_at(stream: &Stream<()>, places: Vec<u64>) -> Result<(), NatsError> {
    let removing = places
        .into_iter()
        .map(|place| messages::delete(stream, place));
    let removing = stream::iter(removing).buffer_unordered(AT_ONCE);
    removing.try_collect().await
}

/// How often a part may have been written: more than once where an answer was lost.
const TIMES: usize = 4;

/// Removes a body, message by message.
///
/// Not by a purge of its subjects: a server up to 2.9.17 that was killed, and finds the purge in its log when it is
/// back, removes all that is older in the stream (nats-server #4196). Where a part is, that is still there, is learned
/// by reading it once more.
pub(super) async fn remove(
    stream: &Stream<()>,
    subject: impl Fn(u32) -> String,
    count: u32,
) -> Result<(), NatsError> {
    let subject = &subject;
    let removing = (0..count).map(|part| async move {
        let subject = subject(part);
        // A leader of before may go on to find it: what is left expires.
        for _ in 0..TIMES {
            match messages::last(stream, &subject).await? {
                Some(found) => messages::delete(stream, found.sequence).await?,
                None => break,
            }
        }
        Ok(())
    });
    let removing = stream::iter(removing).buffer_unordered(AT_ONCE);
    removing.try_collect().await
}
