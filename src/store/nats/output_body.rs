//! The body of a response that was published in parts, while it is produced and afterwards.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;

use super::{
    charged::{charged, reserve_replay},
    error::{NatsError, Source},
    follower::OutputFollower,
    jetstream::JetStream,
    lookup::LocatedJob,
    output_view::{OutputEnd, OutputView},
    part::OutputId,
    response::StreamedParts,
    retry::Retry,
};
use crate::store::ResultBody;

/// The time limit for the retries of a part: longer than a leader election.
const PART_PATIENCE: Duration = Duration::from_secs(30);

/// The maximum number of parts that are read at a time, and of those concurrently.
const MAX_WINDOW: u32 = 64;
const READ_CONCURRENCY: usize = 16;

/// Reads an output from one byte on.
pub(super) struct OutputReader {
    jetstream: Arc<JetStream>,
    id: OutputId,
    source: OutputSource,
    /// The next part to read.
    index: u32,
    /// The next byte to return. The parts before it are skipped.
    offset: u64,
    /// The number of parts to read at a time. Small parts are read many at a time.
    window: u32,
    /// Data that was read in advance.
    ready: Option<Bytes>,
}

enum OutputSource {
    /// This process knows of no end of the call.
    Live {
        view: watch::Receiver<OutputView>,
        _follower: Arc<OutputFollower>,
    },
    Ended(EndedOutput),
}

/// An output that is complete or has broken off.
pub(super) struct EndedOutput {
    pub(super) count: u32,
    pub(super) trailers: Option<HeaderMap>,
    /// Set if it is a part of a response that broke off.
    pub(super) is_broken: bool,
}

/// The next step of a reader.
enum ReadStep {
    Data(u64, Bytes),
    /// Reads parts from the stream. It has this many.
    Fetch(u32),
    Wait,
    End(OutputEnd),
    /// Another call produces a response now.
    Superseded,
}

impl OutputReader {
    /// Creates a reader of an output that is being published. Returns `None` if it is missing.
    pub(super) async fn live(
        jetstream: &Arc<JetStream>,
        follower: Arc<OutputFollower>,
        id: OutputId,
        from: u64,
    ) -> Result<Option<Self>, NatsError> {
        let view = follower.view();
        let (count, bytes, index) = {
            let view = view.borrow();
            match view.output.as_ref().filter(|output| output.id == id) {
                Some(output) => {
                    let index = output.recent_index(from);
                    (output.count, output.bytes, index)
                }
                None => return Ok(None),
            }
        };
        let source = OutputSource::Live {
            view,
            _follower: follower,
        };
        let mut reader = Self::new(jetstream, id, source, from);
        let index = match index {
            _ if from >= bytes => Some(count),
            Some(index) => Some(index),
            None => reader.find(count).await?,
        };
        Ok(index.map(|index| {
            reader.index = index;
            reader
        }))
    }

    /// Creates a reader of an output of `bytes` that has ended, and reads the first data. Returns
    /// `None` if the output is missing.
    pub(super) async fn ended(
        jetstream: &Arc<JetStream>,
        id: OutputId,
        end: EndedOutput,
        bytes: u64,
        from: u64,
    ) -> Result<Option<Self>, NatsError> {
        let count = end.count;
        let source = OutputSource::Ended(end);
        let mut reader = Self::new(jetstream, id, source, from);
        if from >= bytes {
            reader.index = count;
            return Ok(Some(reader));
        }
        let Some(index) = reader.find(count).await? else {
            return Ok(None);
        };
        reader.index = index;
        reader.ready = reader.fetch(count).await?;
        Ok(reader.ready.is_some().then_some(reader))
    }

    fn new(jetstream: &Arc<JetStream>, id: OutputId, source: OutputSource, from: u64) -> Self {
        Self {
            jetstream: jetstream.clone(),
            id,
            source,
            index: 0,
            offset: from,
            window: 1,
            ready: None,
        }
    }

    /// Finds the part that has the next byte, among the first `count`.
    async fn find(&self, count: u32) -> Result<Option<u32>, NatsError> {
        // The part is in this range.
        let (mut first, mut after) = (0, count);
        if self.offset == 0 {
            return Ok(Some(0));
        }
        let budget = &self.jetstream.budget;
        let _charge = reserve_replay(budget, self.jetstream.chunk_bytes()).await?;
        while after - first > 1 {
            let middle = first + (after - first) / 2;
            let Some(part) = self.jetstream.stored_part(self.id, middle).await? else {
                return Ok(None);
            };
            if part.offset <= self.offset {
                first = middle;
            } else {
                after = middle;
            }
        }
        Ok(Some(first))
    }

    /// Returns a body of the rest. `length` is the number of its bytes, if it is known.
    pub(super) fn into_body(self, length: Option<u64>) -> ResultBody {
        let has_trailers = match &self.source {
            OutputSource::Ended(ended) => ended.trailers.is_some(),
            OutputSource::Live { .. } => false,
        };
        let frames = stream::unfold(Some(self), async |reader| {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        ResultBody::streamed(OutputBody {
            frames: Box::pin(frames.fuse()),
            left: length,
            is_exact: !has_trailers,
        })
    }

    /// Reads the next frame. Waits for it if the output is being produced.
    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, Source> {
        if let Some(data) = self.ready.take()
            && !data.is_empty()
        {
            return Ok(Some(Frame::data(data)));
        }
        loop {
            let count = match &mut self.source {
                OutputSource::Live { view, .. } => match step(view, self.id, self.index) {
                    ReadStep::Data(offset, data) => {
                        self.index += 1;
                        let data = self.rest(offset, data);
                        if data.is_empty() {
                            continue;
                        }
                        return Ok(Some(Frame::data(data)));
                    }
                    ReadStep::Fetch(count) => count,
                    ReadStep::Wait => {
                        view.changed().await?;
                        continue;
                    }
                    ReadStep::End(end) => {
                        self.source = OutputSource::Ended(ended(self.id, end)?);
                        continue;
                    }
                    ReadStep::Superseded => return Err("the job runs again".into()),
                },
                OutputSource::Ended(ended) if self.index < ended.count => ended.count,
                OutputSource::Ended(ended) if ended.is_broken => {
                    return Err("the response broke off".into());
                }
                OutputSource::Ended(ended) => {
                    return Ok(ended.trailers.take().map(Frame::trailers));
                }
            };
            let data = self.fetch_with_retries(count).await?;
            if !data.is_empty() {
                return Ok(Some(Frame::data(data)));
            }
        }
    }

    /// Returns the bytes of a part from the next one on.
    fn rest(&mut self, offset: u64, mut data: Bytes) -> Bytes {
        let skipped = self.offset.saturating_sub(offset);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let rest = data.split_off(skipped.min(data.len()));
        self.offset += rest.len() as u64;
        rest
    }

    async fn fetch_with_retries(&mut self, count: u32) -> Result<Bytes, NatsError> {
        let mut retry = Retry::within(PART_PATIENCE);
        loop {
            match self.fetch(count).await {
                Ok(Some(data)) => return Ok(data),
                Ok(None) => return Err(NatsError::unavailable("a part is missing")),
                Err(error @ NatsError::Unavailable(_)) => {
                    retry.wait(error, &self.jetstream.options.prefix).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the next parts of the first `count`, as many as a chunk may hold. Returns `None` if
    /// the next one is missing.
    async fn fetch(&mut self, count: u32) -> Result<Option<Bytes>, NatsError> {
        let jetstream = self.jetstream.clone();
        let limit = jetstream.chunk_bytes();
        let mut charge = reserve_replay(&jetstream.budget, limit).await?;
        let after = self.index.saturating_add(self.window).min(count);
        let id = self.id;
        let reads = (self.index..after).map(|index| jetstream.stored_part(id, index));
        let mut reads = pin!(stream::iter(reads).buffered(READ_CONCURRENCY));
        let (mut data, mut parts) = (BytesMut::new(), 0);
        while let Some(part) = reads.next().await {
            let part = match part {
                Ok(Some(part)) => part,
                Ok(None) => break,
                Err(error) if parts == 0 => return Err(error),
                // The next read fails again.
                Err(_) => break,
            };
            if parts > 0 && data.len() + part.data.len() > limit {
                break;
            }
            data.extend_from_slice(&self.rest(part.offset, part.data));
            parts += 1;
        }
        if parts == 0 {
            return Ok(None);
        }
        self.index += parts;
        self.window = if data.len() <= limit / 4 {
            (self.window * 2).min(MAX_WINDOW)
        } else {
            (self.window / 2).max(1)
        };
        let unused = charge.bytes().saturating_sub(data.len());
        drop(charge.split(unused));
        Ok(Some(charged(data.freeze(), charge)))
    }
}

/// Decides what a reader of an output does next, which waits for the part at `index`.
fn step(view: &mut watch::Receiver<OutputView>, id: OutputId, index: u32) -> ReadStep {
    let view = view.borrow_and_update();
    if let Some(end) = &view.end {
        return ReadStep::End(end.clone());
    }
    match view.output.as_ref().filter(|output| output.id == id) {
        None => ReadStep::Superseded,
        Some(output) if index >= output.count => ReadStep::Wait,
        Some(output) => match output.recent(index) {
            Some((offset, data)) => ReadStep::Data(offset, data),
            None => ReadStep::Fetch(output.count),
        },
    }
}

/// Finds out how an output has ended.
fn ended(id: OutputId, end: OutputEnd) -> Result<EndedOutput, Source> {
    let OutputEnd::Ended(job) = end else {
        return Err("the job was removed".into());
    };
    let LocatedJob { record, .. } = &*job;
    let (Some(kept), Some(StreamedParts { claim, count })) = (
        record.response.as_ref().or(record.partial.as_ref()),
        record.streamed(),
    ) else {
        return Err("the response broke off".into());
    };
    if claim != id.claim {
        return Err("the job has run again".into());
    }
    let trailers = kept.trailers()?;
    Ok(EndedOutput {
        count,
        trailers,
        is_broken: record.response.is_none(),
    })
}

struct OutputBody<S> {
    frames: Pin<Box<S>>,
    /// The number of bytes that are still to come, if it is known.
    left: Option<u64>,
    /// Set unless trailers follow. HTTP/1 frames a body by its length if that is known, and then
    /// has no room for trailers.
    is_exact: bool,
}

impl<S> Body for OutputBody<S>
where
    S: Stream<Item = Result<Frame<Bytes>, Source>>,
{
    type Data = Bytes;
    type Error = Source;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Source>>> {
        let frame = ready!(self.frames.as_mut().poll_next(cx));
        if let (Some(left), Some(Ok(frame))) = (&mut self.left, &frame) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            *left = left.saturating_sub(bytes as u64);
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) if self.is_exact => SizeHint::with_exact(left),
            left => {
                let mut hint = SizeHint::new();
                hint.set_lower(left.unwrap_or(0));
                hint
            }
        }
    }
}
