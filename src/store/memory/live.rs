//! A response that is read while it is written.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project::pin_project;
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::{
    limit::{Charge, compact},
    protocol::BoxError,
    store::{Reading, ResultBody},
};

/// The size of the segments that small chunks are collected in, in bytes.
const SEGMENT_BYTES: usize = 64 * 1024;

/// A response that is read while it is written, and for as long as it is kept afterwards.
///
/// All readers share one copy of its body.
#[derive(Debug)]
pub(super) struct LiveResponse {
    status: StatusCode,
    headers: HeaderMap,
    /// Held to append a chunk, or to copy one out; never across an await or a wake-up.
    state: Mutex<LiveState>,
    /// Notified after each flush, and at the end. One call wakes all readers.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct LiveState {
    /// The full segments, each with the offset of its first byte.
    segments: Vec<(u64, Bytes)>,
    /// The data after the segments.
    tail: BytesMut,
    trailers: Option<HeaderMap>,
    end: Option<LiveEnd>,
    charge: Charge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LiveEnd {
    Complete,
    /// The writer was dropped before the response was complete.
    Broken,
}

impl LiveResponse {
    /// Creates an empty response, which holds `charge`.
    pub(super) fn new(status: StatusCode, headers: HeaderMap, charge: Charge) -> Self {
        Self {
            status,
            headers,
            state: Mutex::new(LiveState {
                segments: Vec::new(),
                tail: BytesMut::new(),
                trailers: None,
                end: None,
                charge,
            }),
            changed: Arc::default(),
        }
    }

    pub(super) fn hold(&self, charge: Charge) {
        self.state.lock().charge.merge(charge);
    }

    /// Takes the charge, for a copy that is kept instead of this.
    pub(super) fn take_charge(&self) -> Charge {
        self.state.lock().charge.split(usize::MAX)
    }

    /// Marks the bytes as those of an ended job.
    pub(super) fn keep(&self) {
        self.state.lock().charge.keep();
    }

    /// Returns the bytes of the budget that this holds.
    pub(super) fn charged(&self) -> usize {
        self.state.lock().charge.bytes()
    }

    /// Appends data. Readers see it after the next [`notify`](Self::notify).
    pub(super) fn push(&self, mut data: Bytes) {
        let mut state = self.state.lock();
        if state.tail.is_empty() && data.len() >= SEGMENT_BYTES {
            let start = state.len();
            state.segments.push((start, compact(data)));
            return;
        }
        while !data.is_empty() {
            let room = SEGMENT_BYTES - state.tail.len();
            let part = data.split_to(room.min(data.len()));
            state.tail.extend_from_slice(&part);
            if state.tail.len() == SEGMENT_BYTES {
                state.seal();
            }
        }
    }

    /// Wakes all readers.
    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Completes the response, and wakes all readers.
    pub(super) fn complete(&self, trailers: Option<HeaderMap>) {
        {
            let mut state = self.state.lock();
            if !state.tail.is_empty() {
                state.seal();
            }
            state.trailers = trailers;
            state.end = Some(LiveEnd::Complete);
        }
        self.notify();
    }

    /// Breaks off the response unless it is complete, and wakes all readers.
    pub(super) fn break_off(&self) {
        self.state.lock().end.get_or_insert(LiveEnd::Broken);
        self.notify();
    }

    pub(super) fn len(&self) -> u64 {
        self.state.lock().len()
    }

    /// Appends the whole body to `to`.
    pub(super) fn copy_to(&self, to: &mut Vec<u8>) {
        let state = self.state.lock();
        for (_, segment) in &state.segments {
            to.extend_from_slice(segment);
        }
        to.extend_from_slice(&state.tail);
    }

    /// Reads the response from byte `from` of its body on.
    pub(super) fn read(self: &Arc<Self>, from: u64) -> Reading {
        let mut response = Response::new(self.read_body(from, None));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        Reading::new(1, self.len(), response)
    }

    /// Reads the body from byte `from` on. The body keeps `reader`.
    pub(super) fn read_body(
        self: &Arc<Self>,
        from: u64,
        reader: Option<Arc<dyn Send + Sync>>,
    ) -> ResultBody {
        ResultBody::streamed(LiveBody {
            response: self.clone(),
            _reader: reader,
            offset: from,
            are_trailers_sent: false,
            is_break_flushed: false,
            change: None,
        })
    }
}

impl LiveState {
    fn len(&self) -> u64 {
        self.sealed_len() + self.tail.len() as u64
    }

    fn sealed_len(&self) -> u64 {
        let last = self.segments.last();
        last.map_or(0, |(start, segment)| start + segment.len() as u64)
    }

    /// Makes the tail a segment.
    fn seal(&mut self) {
        let start = self.sealed_len();
        let tail = self.tail.split().freeze();
        self.segments.push((start, tail));
    }

    /// Returns a chunk that begins at `offset`, if there is one.
    fn chunk(&self, offset: u64) -> Option<Bytes> {
        if let Some(in_tail) = offset.checked_sub(self.sealed_len()) {
            let rest = self.tail.get(usize::try_from(in_tail).ok()?..)?;
            return (!rest.is_empty()).then(|| Bytes::copy_from_slice(rest));
        }
        let next = self.segments.partition_point(|(start, _)| *start <= offset);
        let (start, segment) = self.segments.get(next.checked_sub(1)?)?;
        let mut chunk = segment.clone();
        chunk.advance(usize::try_from(offset - start).ok()?);
        Some(chunk)
    }
}

/// The body of a live response, for one reader.
#[pin_project]
struct LiveBody {
    response: Arc<LiveResponse>,
    /// Keeps the bytes counted as a replay.
    _reader: Option<Arc<dyn Send + Sync>>,
    offset: u64,
    are_trailers_sent: bool,
    /// Set once the body was pending before its error, so that a server sends the data before it.
    is_break_flushed: bool,
    #[pin]
    change: Option<OwnedNotified>,
}

impl Body for LiveBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        loop {
            if let Some(change) = this.change.as_mut().as_pin_mut() {
                ready!(change.poll(cx));
                this.change.set(None);
            }
            let state = this.response.state.lock();
            if let Some(chunk) = state.chunk(*this.offset) {
                *this.offset += chunk.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            match state.end {
                // Created under the lock, so that no notification is lost.
                None => this
                    .change
                    .set(Some(this.response.changed.clone().notified_owned())),
                Some(LiveEnd::Complete) => {
                    let trailers = state.trailers.clone();
                    let trailers = trailers.filter(|_| !*this.are_trailers_sent);
                    *this.are_trailers_sent = true;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Some(LiveEnd::Broken) if !*this.is_break_flushed => {
                    *this.is_break_flushed = true;
                    drop(state);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(LiveEnd::Broken) => {
                    return Poll::Ready(Some(Err("the response broke off".into())));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.response.state.lock();
        let left = state.len().saturating_sub(self.offset);
        let mut hint = SizeHint::new();
        hint.set_lower(left);
        // Trailers need a message that is not framed by its length.
        if state.end == Some(LiveEnd::Complete) && state.trailers.is_none() {
            hint.set_upper(left);
        }
        hint
    }
}
