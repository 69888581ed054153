//! Publishes the response of a call of this process while the call produces it.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    select,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    part::{OutputId, OutputStart, Part, encode_part},
    response::{ResponseRecord, StreamedParts},
};
use crate::{
    ErrorCode,
    store::{BufferedBody, Charge},
};

/// The maximum number of unpublished bytes before the producer waits.
const MAX_BEHIND_BYTES: usize = 1 << 20;

/// The delay of a head without data. The first data often follows at once, and one part holds both.
const HEAD_DELAY: Duration = Duration::from_millis(50);

/// The time limit for one round of retries of a part. The publisher then begins another round.
const ROUND_PATIENCE: Duration = Duration::from_secs(60);

/// The room for the header of a part's message, which counts as payload, in bytes.
const HEADER_BYTES: usize = 256;

/// The output of a call: what is not published yet, and how much is.
///
/// The writer appends to it, and a task publishes. The claim owns the task.
pub(super) struct CallOutput {
    pub(super) id: OutputId,
    start: OutputStart,
    /// Held to append or take bytes, never across an await or a wake-up.
    state: Mutex<PublishState>,
    /// Notified if the publisher has something to do. It alone waits.
    changed: Notify,
}

struct PublishState {
    /// Data that is not published yet, without the part that is being published.
    pending: BytesMut,
    /// The length of the part that is being published.
    sending: Option<usize>,
    /// The number of pending bytes that readers wait for.
    flushed: usize,
    trailers: Option<Box<HeaderMap>>,
    /// For the head and all bytes that are not published yet.
    charge: Option<Charge>,
    /// The number of published parts, and of the bytes in them.
    count: u32,
    bytes: u64,
    /// The time at which the first part was published.
    published_at: Option<Instant>,
    stage: OutputStage,
    /// The producer, if it waits until less is unpublished.
    producer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputStage {
    Open,
    /// Nothing is appended any more. The publisher ends once it has published what was flushed.
    Closed,
    /// Another process ends the job for this reason, so nothing can be published any more.
    Sealed(ErrorCode),
    /// The stream of results takes no more.
    Refused,
}

/// A part that is being published.
struct PublishedPart {
    index: u32,
    offset: u64,
    data: Bytes,
}

/// The parts of an output that are stored.
struct StoredOutput {
    /// `None` if there is no part.
    response: Option<ResponseRecord>,
    stage: OutputStage,
}

/// The next step of the publisher.
enum PublishStep {
    Publish(PublishedPart),
    /// Waits for data to publish with the head, for a moment.
    Delay,
    Wait,
    Done,
}

/// The published part of the response of a call that has ended.
pub(super) enum PublishedOutput {
    /// Nothing was published.
    Nothing(ResponseRecord, BufferedBody),
    /// All of it.
    Whole(ResponseRecord),
    /// The part before another process sealed it.
    Sealed(ErrorCode, Option<ResponseRecord>),
    /// The part that the stream of results took.
    Refused(Option<ResponseRecord>),
}

impl CallOutput {
    fn new(id: OutputId, start: OutputStart, body: BufferedBody) -> Self {
        Self {
            id,
            start,
            state: Mutex::new(PublishState {
                flushed: body.bytes.len(),
                pending: BytesMut::from(body.bytes),
                sending: None,
                trailers: body.trailers,
                charge: body.charge,
                count: 0,
                bytes: 0,
                published_at: None,
                stage: OutputStage::Open,
                producer: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Waits while too much is unpublished. Completes with `false` if no more can be published.
    pub(super) fn poll_behind(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        if state.stage == OutputStage::Refused {
            return Poll::Ready(false);
        }
        if state.unpublished() > MAX_BEHIND_BYTES {
            state.producer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// Adds to the charge. An output that cannot be published drops it.
    pub(super) fn hold(&self, charge: Charge) {
        let mut state = self.state.lock();
        if state.stage != OutputStage::Open {
            return;
        }
        match &mut state.charge {
            Some(all) => all.merge(charge),
            none => *none = Some(charge),
        }
    }

    /// Appends data. `part_bytes` is the maximum size of a part, which is published without a
    /// flush.
    pub(super) fn push(&self, data: &[u8], part_bytes: usize) {
        {
            let mut state = self.state.lock();
            if state.stage != OutputStage::Open {
                return;
            }
            state.pending.extend_from_slice(data);
            let whole = state.pending.len() / part_bytes * part_bytes;
            if whole <= state.flushed {
                return;
            }
            state.flushed = whole;
        }
        self.changed.notify_one();
    }

    pub(super) fn push_trailers(&self, trailers: HeaderMap) {
        let mut state = self.state.lock();
        match &mut state.trailers {
            Some(all) => all.extend(trailers),
            none => *none = Some(Box::new(trailers)),
        }
    }

    /// Lets all data so far be published.
    pub(super) fn flush(&self) {
        {
            let mut state = self.state.lock();
            if state.flushed == state.pending.len() {
                return;
            }
            state.flushed = state.pending.len();
        }
        self.changed.notify_one();
    }

    /// Drops the data that was not flushed: the response has broken off.
    pub(super) fn break_off(&self) {
        let mut state = self.state.lock();
        let flushed = state.flushed;
        state.pending.truncate(flushed);
    }

    /// Returns the number of published parts, and the time since the first one was.
    pub(super) fn published(&self) -> Option<(u32, Duration)> {
        let state = self.state.lock();
        state.published_at.map(|at| (state.count, at.elapsed()))
    }

    /// Publishes parts until the output is closed and everything that was flushed is published.
    async fn publish(&self, jetstream: &JetStream, lost: &CancellationToken) {
        let head = encode_part(0, Some(&self.start), b"").len() + HEADER_BYTES;
        let payload = jetstream.context.client().max_payload();
        let part_bytes = jetstream.chunk_bytes();
        let first_bytes = payload.saturating_sub(head).min(part_bytes);
        let mut is_delayed = false;
        loop {
            match self.next(first_bytes, part_bytes, is_delayed) {
                PublishStep::Publish(part) => {
                    let published = select! {
                        published = self.publish_part(jetstream, &part) => published,
                        // Another process has ended the job.
                        () = lost.cancelled() => Err(OutputStage::Sealed(ErrorCode::Canceled)),
                    };
                    if let Err(stage) = published {
                        return self.stop(stage);
                    }
                    self.note_published(part.data.len());
                }
                PublishStep::Delay => {
                    let _ = timeout(HEAD_DELAY, self.changed.notified()).await;
                    is_delayed = true;
                }
                // A notification since the look at the state is not lost.
                PublishStep::Wait => self.changed.notified().await,
                PublishStep::Done => return,
            }
        }
    }

    /// Takes the next part to publish.
    fn next(&self, first_bytes: usize, part_bytes: usize, is_delayed: bool) -> PublishStep {
        let state = &mut *self.state.lock();
        if matches!(state.stage, OutputStage::Sealed(_) | OutputStage::Refused) {
            return PublishStep::Done;
        }
        let is_first = state.count == 0;
        if state.flushed == 0 && !(is_first && is_delayed && state.stage == OutputStage::Open) {
            return match state.stage {
                OutputStage::Open if is_first => PublishStep::Delay,
                OutputStage::Open => PublishStep::Wait,
                _ => PublishStep::Done,
            };
        }
        let bytes = state
            .flushed
            .min(if is_first { first_bytes } else { part_bytes });
        state.flushed -= bytes;
        state.sending = Some(bytes);
        PublishStep::Publish(PublishedPart {
            index: state.count,
            offset: state.bytes,
            data: state.pending.split_to(bytes).freeze(),
        })
    }

    /// Publishes a part, with retries for as long as the claim holds.
    async fn publish_part(
        &self,
        jetstream: &JetStream,
        part: &PublishedPart,
    ) -> Result<(), OutputStage> {
        let start = (part.index == 0).then_some(&self.start);
        let payload = encode_part(part.offset, start, &part.data);
        loop {
            let created = jetstream.create_part(self.id, part.index, &payload, ROUND_PATIENCE);
            match created.await {
                // Only this task writes parts of this claim.
                Ok(None | Some(Part { seal: None, .. })) => return Ok(()),
                Ok(Some(Part {
                    seal: Some(code), ..
                })) => return Err(OutputStage::Sealed(code)),
                Err(WriteError::Full | WriteError::TooLarge) => return Err(OutputStage::Refused),
                Err(error) => {
                    let error = error.into_error();
                    tracing::warn!(%error, id = %self.id.job, "failed to publish output");
                }
            }
        }
    }

    fn note_published(&self, bytes: usize) {
        // Dropped after the lock: a release may wake other tasks.
        let (_released, producer);
        {
            let state = &mut *self.state.lock();
            state.sending = None;
            state.count += 1;
            state.bytes += bytes as u64;
            state.published_at.get_or_insert_with(Instant::now);
            _released = state.charge.as_mut().map(|charge| charge.split(bytes));
            let is_near = state.unpublished() <= MAX_BEHIND_BYTES;
            producer = state.producer.take_if(|_| is_near);
        }
        if let Some(producer) = producer {
            producer.wake();
        }
    }

    fn stop(&self, stage: OutputStage) {
        let (_released, producer);
        {
            let state = &mut *self.state.lock();
            state.stage = stage;
            state.sending = None;
            state.flushed = 0;
            state.pending = BytesMut::new();
            _released = state.charge.take();
            producer = state.producer.take();
        }
        if let Some(producer) = producer {
            producer.wake();
        }
    }

    /// Closes the output of a call without a whole response. Returns `false` if there is
    /// nothing to publish.
    fn close(&self) -> bool {
        let has_part = {
            let state = &mut *self.state.lock();
            if state.stage == OutputStage::Open {
                state.stage = OutputStage::Closed;
            }
            state.count > 0 || state.sending.is_some() || state.flushed > 0
        };
        self.changed.notify_one();
        has_part
    }

    /// Closes the output of a whole response. Returns its body if nothing was published of it.
    fn complete(&self) -> Option<BufferedBody> {
        let nothing_published = {
            let state = &mut *self.state.lock();
            let is_open = state.stage == OutputStage::Open;
            if is_open {
                state.stage = OutputStage::Closed;
                state.flushed = state.pending.len();
            }
            (is_open && state.count == 0 && state.sending.is_none()).then(|| {
                state.flushed = 0;
                BufferedBody {
                    bytes: std::mem::take(&mut state.pending).freeze(),
                    trailers: state.trailers.take(),
                    charge: state.charge.take(),
                }
            })
        };
        self.changed.notify_one();
        nothing_published
    }

    /// Returns the part of the response that has been published.
    fn stored(&self) -> StoredOutput {
        let state = self.state.lock();
        let parts = StreamedParts {
            claim: self.id.claim,
            count: state.count,
        };
        let response = self.start.response.clone();
        StoredOutput {
            response: (parts.count > 0).then(|| response.with_parts(state.bytes, parts)),
            stage: state.stage,
        }
    }
}

impl PublishState {
    fn unpublished(&self) -> usize {
        self.pending.len() + self.sending.unwrap_or(0)
    }
}

/// The output of a claim, and the task that publishes it, which ends when this is dropped.
pub(super) struct RunningOutput {
    pub(super) output: Arc<CallOutput>,
    task: JoinHandle<()>,
}

impl RunningOutput {
    /// Starts to publish an output, beginning with the flushed `body`.
    pub(super) fn start(
        jetstream: Arc<JetStream>,
        lost: CancellationToken,
        id: OutputId,
        start: OutputStart,
        body: BufferedBody,
    ) -> Self {
        let output = Arc::new(CallOutput::new(id, start, body));
        let publishing = output.clone();
        let task = async move { publishing.publish(&jetstream, &lost).await };
        Self {
            output,
            task: tokio::spawn(task),
        }
    }

    /// Publishes the rest of a whole response.
    pub(super) async fn complete(
        mut self,
        patience: Duration,
    ) -> Result<PublishedOutput, NatsError> {
        if let Some(body) = self.output.complete() {
            let response = self.output.start.response.clone();
            return Ok(PublishedOutput::Nothing(response.with_body(&body), body));
        }
        self.published(patience).await?;
        let StoredOutput { response, stage } = self.output.stored();
        let trailers = self.output.state.lock().trailers.take();
        Ok(match (stage, response) {
            (OutputStage::Sealed(code), part) => PublishedOutput::Sealed(code, part),
            (OutputStage::Open | OutputStage::Closed, Some(whole)) => {
                PublishedOutput::Whole(whole.with_trailers(trailers.as_deref()))
            }
            (_, part) => PublishedOutput::Refused(part),
        })
    }

    /// Publishes the rest of what was flushed of a response that has broken off, and returns it.
    pub(super) async fn break_off(mut self, patience: Duration) -> Option<ResponseRecord> {
        if !self.output.close() {
            return None;
        }
        if let Err(error) = self.published(patience).await {
            tracing::warn!(%error, id = %self.output.id.job, "failed to publish all output");
        }
        self.output.stored().response
    }

    /// Waits until the publisher has ended.
    async fn published(&mut self, patience: Duration) -> Result<(), NatsError> {
        match timeout(patience, &mut self.task).await {
            Ok(ended) => ended.map_err(NatsError::unavailable),
            Err(_) => Err(NatsError::unavailable("the output is not stored in time")),
        }
    }
}

impl Drop for RunningOutput {
    fn drop(&mut self) {
        self.task.abort();
    }
}
