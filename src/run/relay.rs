//! Passes the output of a call to the client that submitted its request.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, response};
use http_body::SizeHint;
use parking_lot::Mutex;

/// The maximum number of bytes that wait for the client. A client that is further behind reads the
/// store's copy.
const MAX_QUEUED_BYTES: usize = 64 * 1024;

/// The bytes that a frame takes besides its data.
const FRAME_BYTES: usize = 64;

/// Creates a relay: the call's end, and the client's.
pub(crate) fn relay() -> (RelayWriter, RelayReader) {
    let relay = Arc::new(Mutex::new(RelayState::default()));
    (RelayWriter(relay.clone()), RelayReader(relay))
}

/// The output between a call and its client.
///
/// The lock is held for one step, never across an await or a wake-up. Each side registers its waker
/// under the lock, and the other side takes the waker in the step that changes what it waits for.
/// So no wake-up is lost.
#[derive(Default)]
struct RelayState {
    /// The head, until the client takes it.
    head: Option<Box<(response::Parts, SizeHint)>>,
    frames: VecDeque<Bytes>,
    queued_bytes: usize,
    /// The number of bytes before the first frame.
    start: u64,
    trailers: Option<HeaderMap>,
    copy: StoredCopy,
    end: Option<RelayEnd>,
    is_client_gone: bool,
    client: Option<Waker>,
    call: Option<Waker>,
}

/// The store's copy of the output.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum StoredCopy {
    /// The store has all that passes through here.
    #[default]
    Whole,
    /// The client is behind. It reads the copy, and nothing passes through here.
    Reading,
    /// The copy has ended, and the rest only passes through here.
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RelayEnd {
    Complete,
    Broken,
}

/// The call's end of a relay. If it is dropped before the output is complete, the output breaks.
pub(crate) struct RelayWriter(Arc<Mutex<RelayState>>);

impl RelayWriter {
    /// Passes on the head, and the hint of the body's length.
    pub(super) fn begin(&self, head: response::Parts, hint: SizeHint) {
        self.change(|state| state.head = Some(Box::new((head, hint))));
    }

    /// Passes on data that the store has a copy of.
    pub(super) fn push(&self, data: &Bytes) {
        self.change(|state| {
            if state.copy == StoredCopy::Reading || state.is_client_gone {
                return;
            }
            // A frame that comes alone is sent as it is, however large.
            let is_behind = state.cost() + data.len() > MAX_QUEUED_BYTES;
            if is_behind && !state.frames.is_empty() {
                state.copy = StoredCopy::Reading;
                state.frames.clear();
                state.queued_bytes = 0;
            } else {
                state.push(data.clone());
            }
        });
    }

    /// Ends the store's copy after `length` bytes. Returns `false` if the client has disconnected.
    pub(super) fn end_copy(&self, length: u64) -> bool {
        let mut state = self.0.lock();
        if state.copy == StoredCopy::Reading {
            state.start = length;
        }
        state.copy = StoredCopy::Ended;
        !state.is_client_gone
    }

    /// Waits until the client has taken the frames. Completes with `false` if it has disconnected.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock();
        if state.is_client_gone {
            return Poll::Ready(false);
        }
        if state.cost() < MAX_QUEUED_BYTES {
            return Poll::Ready(true);
        }
        state.call = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Completes when the client has disconnected.
    pub(super) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_client_gone {
            return Poll::Ready(());
        }
        state.call = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Passes on data that the store has no copy of.
    pub(super) fn push_alone(&self, data: Bytes) {
        self.change(|state| state.push(data));
    }

    /// Completes the output.
    pub(super) fn complete(&self, trailers: Option<HeaderMap>) {
        self.change(|state| {
            state.trailers = trailers;
            state.end.get_or_insert(RelayEnd::Complete);
        });
    }

    fn change(&self, change: impl FnOnce(&mut RelayState)) {
        let client = {
            let mut state = self.0.lock();
            change(&mut state);
            state.client.take()
        };
        if let Some(client) = client {
            client.wake();
        }
    }
}

impl Drop for RelayWriter {
    fn drop(&mut self) {
        self.change(|state| {
            state.end.get_or_insert(RelayEnd::Broken);
        });
    }
}

/// The client's end of a relay.
pub(crate) struct RelayReader(Arc<Mutex<RelayState>>);

/// The next piece for the client of a relay.
pub(crate) enum Relayed {
    Data(Bytes),
    /// The client is behind, and reads the store's copy from here on.
    Behind,
    /// The end, with trailers.
    End(Option<HeaderMap>),
    Broken,
}

impl RelayReader {
    /// Waits for the head. Completes with `None` if the job ends without one.
    pub(crate) fn poll_head(&self, cx: &Context<'_>) -> Poll<Option<(response::Parts, SizeHint)>> {
        let mut state = self.0.lock();
        if let Some(head) = state.head.take() {
            return Poll::Ready(Some(*head));
        }
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        state.client = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for what comes after the first `offset` bytes, which the client has.
    pub(crate) fn poll_next(&self, offset: u64, cx: &Context<'_>) -> Poll<Relayed> {
        let (next, call) = {
            let mut state = self.0.lock();
            let next = state.next(offset);
            if next.is_none() {
                state.client = Some(cx.waker().clone());
            }
            (next, state.call.take())
        };
        if let Some(call) = call {
            call.wake();
        }
        next.map_or(Poll::Pending, Poll::Ready)
    }

    /// Returns `true` if the output goes on here after `offset` bytes of the store's copy.
    pub(crate) fn goes_on_at(&self, offset: u64) -> bool {
        let state = self.0.lock();
        state.copy == StoredCopy::Ended && state.start == offset
    }

    /// Returns the number of bytes that are left, if the output is complete.
    pub(crate) fn complete_length(&self) -> Option<u64> {
        let state = self.0.lock();
        let is_whole = state.copy == StoredCopy::Whole && state.trailers.is_none();
        (is_whole && state.end == Some(RelayEnd::Complete)).then_some(state.queued_bytes as u64)
    }
}

impl Drop for RelayReader {
    fn drop(&mut self) {
        let (frames, call) = {
            let mut state = self.0.lock();
            state.is_client_gone = true;
            (std::mem::take(&mut state.frames), state.call.take())
        };
        drop(frames);
        if let Some(call) = call {
            call.wake();
        }
    }
}

impl RelayState {
    /// Returns the bytes that the frames take.
    fn cost(&self) -> usize {
        self.queued_bytes + self.frames.len() * FRAME_BYTES
    }

    fn push(&mut self, data: Bytes) {
        self.queued_bytes += data.len();
        self.frames.push_back(data);
    }

    fn next(&mut self, offset: u64) -> Option<Relayed> {
        if self.copy == StoredCopy::Reading || self.start > offset {
            return Some(Relayed::Behind);
        }
        if let Some(data) = self.frames.pop_front() {
            self.queued_bytes -= data.len();
            self.start += data.len() as u64;
            return Some(Relayed::Data(data));
        }
        Some(match self.end? {
            RelayEnd::Complete => Relayed::End(self.trailers.take()),
            RelayEnd::Broken => Relayed::Broken,
        })
    }
}
