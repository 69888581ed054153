//! Collects the response of a call until its job ends.

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, response::Parts};

use crate::store::{BodyBuffer, Budget, BufferedBody, NoRoom, Purpose, Writer};

/// Writes the response of a job in JetStream:
/// [`Store::respond`](crate::store::Store::respond).
///
/// It collects the response in memory. The end of the job publishes it.
pub struct NatsWriter {
    budget: Budget,
    head: Parts,
    body: BodyBuffer,
    is_head_charged: bool,
}

impl NatsWriter {
    pub(super) fn new(budget: Budget, head: Parts) -> Self {
        Self {
            budget,
            head,
            body: BodyBuffer::new(),
            is_head_charged: false,
        }
    }

    /// Returns the response. Its body holds what was charged for all of it.
    pub(super) fn finish(mut self) -> (Parts, BufferedBody) {
        let body = self.body.take();
        (self.head, body)
    }
}

impl Writer for NatsWriter {
    fn poll_room(&mut self, bytes: usize, _: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let head = if self.is_head_charged {
            0
        } else {
            head_bytes(&self.head)
        };
        let Some(charge) = self.budget.reserve(head + bytes, Purpose::Response) else {
            return Poll::Ready(Err(NoRoom::new()));
        };
        self.is_head_charged = true;
        self.body.hold(charge);
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        self.body.push(data, None);
    }

    fn push_trailers(&mut self, trailers: HeaderMap) {
        self.body.push_trailers(trailers);
    }

    /// Has no effect: a response becomes readable when its job ends.
    fn flush(&mut self) {}
}

/// Returns what the head of a response is charged.
fn head_bytes(head: &Parts) -> usize {
    let fields = head.headers.iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

impl fmt::Debug for NatsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsWriter")
            .field("status", &self.head.status)
            .finish_non_exhaustive()
    }
}
