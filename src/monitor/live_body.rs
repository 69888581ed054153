//! The body of an output that may break off.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    awaited::AwaitedResults, job::JobId, limit::Pace, protocol::BoxError, registry::Registry,
    store::ResultBody, telemetry::GaugeGuard,
};

/// The maximum time that an error waits until the server has sent the data before it.
const MAX_BREAK_DELAY: Duration = Duration::from_secs(60);

/// The time from the last data to the error. A server that copies frames sends the copies in it.
const BREAK_DELAY: Duration = Duration::from_millis(100);

/// A body that lets a server send its data before it breaks off.
///
/// A server drops what it has not sent when a body fails. So the error waits until the server has
/// dropped all frames.
struct BreakableBody {
    body: ResultBody,
    unsent: Arc<UnsentFrames>,
    breaking: Option<Breaking>,
    /// The offset of the next byte, and the pace of the call that produces it.
    pace: Option<(u64, Arc<Pace>)>,
    read: ResultRead,
    has_failed: bool,
    _gauge: GaugeGuard,
}

/// An error that waits.
struct Breaking {
    error: BoxError,
    delay: Pin<Box<Sleep>>,
    has_unsent: bool,
}

/// Records that a client has read the result of a job to its end.
pub(crate) struct ResultRead {
    awaited: Arc<AwaitedResults>,
    id: JobId,
}

impl ResultRead {
    pub(crate) fn new<St>(registry: &Registry<St>, id: JobId) -> Self {
        Self {
            awaited: registry.awaited.clone(),
            id,
        }
    }

    fn record(&self) {
        self.awaited.taken(self.id);
    }
}

/// Delays the error of a body, and counts the body as a stream. `pace` is that of the call that
/// produces the body, with the offset of its first byte. The end of the body is recorded as `read`.
pub(crate) fn live(
    body: ResultBody,
    pace: Option<(u64, Arc<Pace>)>,
    read: ResultRead,
) -> ResultBody {
    if body.is_empty() && !body.has_trailers() {
        read.record();
        return body;
    }
    ResultBody::boxed(BreakableBody {
        body,
        unsent: Arc::default(),
        breaking: None,
        pace,
        read,
        has_failed: false,
        _gauge: GaugeGuard::stream(),
    })
}

impl Body for BreakableBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.breaking.is_none() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    this.has_failed = true;
                    this.breaking = Some(Breaking {
                        error,
                        delay: Box::pin(sleep(MAX_BREAK_DELAY)),
                        has_unsent: true,
                    });
                    return this.poll_break(cx);
                }
                None => {
                    this.read.record();
                    return Poll::Ready(None);
                }
            };
            if let (Some(data), Some((offset, pace))) = (frame.data_ref(), &mut this.pace) {
                *offset += data.len() as u64;
                pace.advance(*offset);
            }
            let frame = frame.map_data(|data| this.unsent.add(data));
            return Poll::Ready(Some(Ok(frame)));
        }
        this.poll_break(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.breaking.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for BreakableBody {
    fn drop(&mut self) {
        // A server need not poll a body whose end it knows.
        let is_read = self.is_end_stream() || self.size_hint().exact() == Some(0);
        if !self.has_failed && is_read {
            self.read.record();
        }
    }
}

impl BreakableBody {
    fn poll_break(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(breaking) = &mut self.breaking else {
            return Poll::Ready(None);
        };
        if breaking.has_unsent && self.unsent.poll_sent(cx).is_ready() {
            breaking.has_unsent = false;
            let until = Instant::now() + BREAK_DELAY;
            breaking.delay.as_mut().reset(until);
        }
        ready!(breaking.delay.as_mut().poll(cx));
        let breaking = self.breaking.take();
        // A body that is polled again after its error ends.
        self.body = ResultBody::default();
        Poll::Ready(breaking.map(|breaking| Err(breaking.error)))
    }
}

/// The frames that a server has not dropped yet.
#[derive(Debug, Default)]
struct UnsentFrames {
    /// Held for one step, never across a wake-up. The waker is registered in the step that reads
    /// the count, so the last drop is not missed.
    state: Mutex<UnsentState>,
}

#[derive(Debug, Default)]
struct UnsentState {
    frames: usize,
    waker: Option<Waker>,
}

impl UnsentFrames {
    /// Counts a frame until its last share is dropped.
    fn add(self: &Arc<Self>, data: Bytes) -> Bytes {
        self.state.lock().frames += 1;
        Bytes::from_owner(UnsentFrame {
            data,
            frames: self.clone(),
        })
    }

    /// Completes when the server has dropped all frames.
    fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.frames == 0 {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

struct UnsentFrame {
    data: Bytes,
    frames: Arc<UnsentFrames>,
}

impl AsRef<[u8]> for UnsentFrame {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for UnsentFrame {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.frames.state.lock();
            state.frames -= 1;
            if state.frames > 0 {
                return;
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
