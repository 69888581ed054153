//! A response that is read while it is written.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::SizeHint;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::limit::{Charge, compact, fields_price};

/// The size of the segments that small chunks are collected in, in bytes.
const SEGMENT_BYTES: usize = 64 * 1024;

/// A response that is read while it is written, and for as long as it is kept afterwards.
///
/// All readers share one copy of its body.
#[derive(Debug)]
pub(super) struct LiveResponse {
    status: StatusCode,
    headers: HeaderMap,
    /// The length of the whole body, if the service declared it.
    length: Option<u64>,
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
    /// The job ended, or the writer was dropped, before the response was complete.
    Broken,
}

/// The next piece for a reader at its offset.
pub(super) enum LivePart {
    Data(Bytes),
    /// Nothing until the next change.
    Wait(OwnedNotified),
    /// The end, with trailers.
    End(Option<HeaderMap>),
    Broken,
}

impl LiveResponse {
    /// Creates an empty response, which holds `charge`.
    pub(super) fn new(
        status: StatusCode,
        headers: HeaderMap,
        length: Option<u64>,
        charge: Charge,
    ) -> Self {
        Self {
            status,
            headers,
            length,
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

    /// Adds to the charge. A response that has ended drops it.
    pub(super) fn hold(&self, charge: Charge) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.charge.merge(charge);
        }
    }

    /// Marks the bytes of a response that has ended as kept, and returns its trailers.
    pub(super) fn keep(&self) -> Option<HeaderMap> {
        let (trailers, excess) = {
            let mut state = self.state.lock();
            state.charge.keep();
            // A response that broke off may have taken room for all that it declared.
            let price = state.len() as usize + fields_price(&self.headers);
            let excess = match state.end {
                Some(LiveEnd::Broken) => state.charge.bytes().saturating_sub(price),
                _ => 0,
            };
            (state.trailers.clone(), state.charge.split(excess))
        };
        drop(excess);
        trailers
    }

    /// Takes the charge, for a copy that is kept instead of this.
    pub(super) fn take_charge(&self) -> Charge {
        self.state.lock().charge.split(usize::MAX)
    }

    /// Returns the bytes of the budget that this holds.
    pub(super) fn charged(&self) -> usize {
        self.state.lock().charge.bytes()
    }

    /// Appends data. Readers see it after the next [`notify`](Self::notify).
    pub(super) fn push(&self, mut data: Bytes) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
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
            if state.end.is_none() {
                state.end(LiveEnd::Complete);
                state.trailers = trailers;
            }
        }
        self.notify();
    }

    /// Breaks off the response unless it is complete. The caller wakes the readers.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end(LiveEnd::Broken);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().end.is_some()
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

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the next piece for a reader at `offset`.
    pub(super) fn part(&self, offset: u64) -> LivePart {
        let state = self.state.lock();
        if let Some(chunk) = state.chunk(offset) {
            return LivePart::Data(chunk);
        }
        match state.end {
            // Created under the lock, so that no notification is lost.
            None => LivePart::Wait(self.changed.clone().notified_owned()),
            Some(LiveEnd::Complete) => LivePart::End(state.trailers.clone()),
            Some(LiveEnd::Broken) => LivePart::Broken,
        }
    }

    /// Returns the hint for a reader at `offset`.
    pub(super) fn size_hint(&self, offset: u64) -> SizeHint {
        let state = self.state.lock();
        let left = state.len().saturating_sub(offset);
        let mut hint = SizeHint::new();
        match (state.end, self.length) {
            // Trailers need a message that is not framed by its length.
            (Some(LiveEnd::Complete), _) if state.trailers.is_none() => hint.set_exact(left),
            (None, Some(length)) => hint.set_exact(length.saturating_sub(offset)),
            _ => hint.set_lower(left),
        }
        hint
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

    fn end(&mut self, end: LiveEnd) {
        if !self.tail.is_empty() {
            self.seal();
        }
        self.end = Some(end);
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
