//! Collects the response of a call, and publishes it once it is flushed.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, response::Parts};

use super::{
    active::ActiveClaim, jetstream::JetStream, output::CallOutput, response::ResponseRecord,
};
use crate::store::{
    BodyBuffer, BufferedBody, NoRoom, Purpose, ResponseRoom, Writer, compact, compact_fields,
};

/// Writes the response of a job in JetStream:
/// [`Store::respond`](crate::store::Store::respond).
///
/// It collects the response in memory. From the first flush on, it publishes the response in parts,
/// which need no memory once they are stored. The end of the job publishes the rest.
pub struct NatsWriter {
    room: ResponseRoom,
    jetstream: Arc<JetStream>,
    active: Arc<ActiveClaim>,
    head: Parts,
    /// The number of bytes that the service declared.
    length: Option<u64>,
    body: ResponseStage,
}

enum ResponseStage {
    Buffered(BodyBuffer),
    Published(Arc<CallOutput>),
}

impl NatsWriter {
    pub(super) fn new(
        jetstream: &Arc<JetStream>,
        active: &Arc<ActiveClaim>,
        mut head: Parts,
        length: Option<u64>,
    ) -> Self {
        compact_fields(&mut head.headers);
        Self {
            room: ResponseRoom::new(&jetstream.budget),
            jetstream: jetstream.clone(),
            active: active.clone(),
            head,
            length,
            body: ResponseStage::Buffered(BodyBuffer::new()),
        }
    }

    /// Returns a response that was never flushed. Its body holds what was charged for all of it.
    pub(super) fn into_buffered(mut self) -> Option<(ResponseRecord, BufferedBody)> {
        // Dropping the writer must not break off the response.
        let written = mem::replace(&mut self.body, ResponseStage::Buffered(BodyBuffer::new()));
        match written {
            ResponseStage::Buffered(mut body) => {
                let body = body.take();
                Some((ResponseRecord::new(&self.head).with_body(&body), body))
            }
            ResponseStage::Published(_) => None,
        }
    }
}

impl Writer for NatsWriter {
    /// Waits for room in the budget, and for the publisher if it is more than 1 MiB behind.
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        if let ResponseStage::Published(output) = &self.body
            && !ready!(output.poll_behind(cx))
        {
            return Poll::Ready(Err(NoRoom::new()));
        }
        let budget = self.room.budget().clone();
        let reserve = |bytes| budget.reserve(bytes, Purpose::Response);
        let Some(charge) = ready!(self.room.poll_reserve(bytes, cx, reserve)) else {
            return Poll::Ready(Err(NoRoom::new()));
        };
        match &mut self.body {
            ResponseStage::Buffered(body) => body.hold(charge),
            ResponseStage::Published(output) => output.hold(charge),
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        match &mut self.body {
            // The buffer copies all but the first frame.
            ResponseStage::Buffered(body) if body.is_empty() => body.push(compact(data), None),
            ResponseStage::Buffered(body) => body.push(data, None),
            ResponseStage::Published(output) => output.push(&data, self.jetstream.chunk_bytes()),
        }
    }

    fn push_trailers(&mut self, mut trailers: HeaderMap) {
        compact_fields(&mut trailers);
        match &mut self.body {
            ResponseStage::Buffered(body) => body.push_trailers(trailers),
            ResponseStage::Published(output) => output.push_trailers(trailers),
        }
    }

    /// Publishes all data so far: at once if no part is being published, or else when the part's
    /// acknowledgement arrives.
    fn flush(&mut self) {
        match &mut self.body {
            ResponseStage::Published(output) => output.flush(),
            ResponseStage::Buffered(body) => {
                let response = ResponseRecord::new(&self.head);
                let flushed = || body.take();
                let published =
                    self.active
                        .publish(&self.jetstream, response, self.length, flushed);
                // A claim publishes a single response.
                if let Some(output) = published {
                    self.body = ResponseStage::Published(output);
                }
            }
        }
    }
}

impl Drop for NatsWriter {
    fn drop(&mut self) {
        if let ResponseStage::Published(output) = &self.body {
            output.break_off();
        }
    }
}

impl fmt::Debug for NatsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsWriter")
            .field("status", &self.head.status)
            .finish_non_exhaustive()
    }
}
