//! Reads any body as frames of `Bytes`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};

/// The maximum number of frames that one poll reads. Empty frames and trailers count.
const MAX_POLL_FRAMES: usize = 64;

/// The number of bytes after which one poll reads no further frame.
const MAX_POLL_BYTES: usize = 1024 * 1024;

/// Limits what one poll reads of a body.
///
/// A body that is always ready would otherwise keep its task from noticing a timeout, a cancel or a
/// drain, and other tasks from its thread. Each poll that reads in a loop creates one.
pub(crate) struct PollAllowance {
    frames: usize,
    bytes: usize,
}

impl PollAllowance {
    pub(crate) fn new() -> Self {
        Self {
            frames: MAX_POLL_FRAMES,
            bytes: MAX_POLL_BYTES,
        }
    }

    /// Completes if the next frame of `body` may be read. If the allowance is spent, this wakes the
    /// task and is pending.
    #[inline]
    pub(crate) fn poll_next(&mut self, body: &impl Body, cx: &Context<'_>) -> Poll<()> {
        // The end has no bytes, so a large body in one frame is read in one poll.
        if self.frames == 0 || (self.bytes == 0 && !body.is_end_stream()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.frames -= 1;
        Poll::Ready(())
    }

    /// Counts the data of a frame that was read.
    #[inline]
    pub(crate) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Polls the next frame and converts its data to `Bytes`, which is free if it is `Bytes` already.
pub(crate) fn poll_bytes<B: Body>(
    body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
    let frame = ready!(body.poll_frame(cx));
    Poll::Ready(frame.map(|frame| {
        frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
    }))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::HeaderMap;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::protocol::BoxError;

    /// Returns how many times `body` is ready within one allowance.
    fn ready_polls<B: Body + Unpin>(mut body: B) -> usize {
        let (mut allowance, mut ready) = (PollAllowance::new(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        while allowance.poll_next(&body, &cx).is_ready() {
            ready += 1;
            match poll_bytes(Pin::new(&mut body), &mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    allowance.count(frame.data_ref().map_or(0, Bytes::len));
                }
                _ => break,
            }
        }
        ready
    }

    fn endless(frame: impl Fn() -> Frame<Bytes> + Unpin) -> impl Body + Unpin {
        StreamBody::new(futures_util::stream::repeat_with(move || {
            Ok::<_, BoxError>(frame())
        }))
    }

    #[test]
    fn one_poll_reads_64_frames_of_any_kind() {
        assert_eq!(ready_polls(endless(|| Frame::data(Bytes::new()))), 64);
        let trailers = endless(|| Frame::trailers(HeaderMap::new()));
        assert_eq!(ready_polls(trailers), 64);
    }

    #[test]
    fn one_poll_stops_after_1_mib() {
        let data = Bytes::from(vec![0; MAX_POLL_BYTES / 4]);
        assert_eq!(ready_polls(endless(|| Frame::data(data.clone()))), 4);
    }

    #[test]
    fn one_poll_reads_a_large_frame_and_the_end() {
        let data = Bytes::from(vec![0; 2 * MAX_POLL_BYTES]);
        assert_eq!(ready_polls(Full::new(data)), 2);
    }
}
