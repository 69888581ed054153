//! Collects the response of a call until its job ends.

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, response::Parts};

use crate::store::{
    BodyBuffer, Budget, BufferedBody, NoRoom, Purpose, ResponseRoom, Writer, compact,
    compact_fields,
};

/// Writes the response of a job in JetStream:
/// [`Store::respond`](crate::store::Store::respond).
///
/// It collects the response in memory. The end of the job publishes it.
pub struct NatsWriter {
    room: ResponseRoom,
    head: Parts,
    body: BodyBuffer,
}

impl NatsWriter {
    pub(super) fn new(budget: &Budget, mut head: Parts) -> Self {
        compact_fields(&mut head.headers);
        Self {
            room: ResponseRoom::new(budget),
            head,
            body: BodyBuffer::new(),
        }
    }

    /// Returns the response. Its body holds what was charged for all of it.
    pub(super) fn finish(mut self) -> (Parts, BufferedBody) {
        let body = self.body.take();
        (self.head, body)
    }
}

impl Writer for NatsWriter {
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let budget = self.room.budget().clone();
        let reserve = |bytes| budget.reserve(bytes, Purpose::Response);
        let Some(charge) = ready!(self.room.poll_reserve(bytes, cx, reserve)) else {
            return Poll::Ready(Err(NoRoom::new()));
        };
        self.body.hold(charge);
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        // The buffer copies all but the first frame.
        let data = if self.body.is_empty() {
            compact(data)
        } else {
            data
        };
        self.body.push(data, None);
    }

    fn push_trailers(&mut self, mut trailers: HeaderMap) {
        compact_fields(&mut trailers);
        self.body.push_trailers(trailers);
    }

    /// Has no effect: a response becomes readable when its job ends.
    fn flush(&mut self) {}
}

impl fmt::Debug for NatsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsWriter")
            .field("status", &self.head.status)
            .finish_non_exhaustive()
    }
}
