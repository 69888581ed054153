//! Collects responses.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, response};
use tower_accepted::store::{
    BodyBuffer, Budget, BufferedBody, Charge, NoRoom, Purpose, ResponseRoom, Writer,
};

/// Collects the response of a call until its job ends.
#[derive(Debug)]
pub(crate) struct MapWriter {
    room: ResponseRoom,
    head: response::Parts,
    body: BodyBuffer,
}

/// A response that is kept, with its charge.
#[derive(Debug)]
pub(crate) struct StoredResult {
    pub(crate) head: response::Parts,
    pub(crate) body: BufferedBody,
}

impl MapWriter {
    pub(crate) fn new(budget: &Budget, head: response::Parts) -> Self {
        Self {
            room: ResponseRoom::new(budget),
            head,
            body: BodyBuffer::new(),
        }
    }

    pub(crate) fn into_result(mut self) -> StoredResult {
        let mut body = self.body.take();
        body.charge.iter_mut().for_each(Charge::keep);
        let head = self.head;
        StoredResult { head, body }
    }
}

impl Writer for MapWriter {
    /// Takes room for a chunk, or waits for it. The layer reads no more of the response meanwhile.
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let budget = self.room.budget().clone();
        let reserve = |bytes| budget.reserve(bytes, Purpose::Response);
        let charge = ready!(self.room.poll_reserve(bytes, cx, reserve));
        let held = charge.map(|charge| self.body.hold(charge));
        Poll::Ready(held.ok_or_else(NoRoom::new))
    }

    fn push(&mut self, data: Bytes) {
        self.body.push(data, None);
    }

    fn push_trailers(&mut self, trailers: HeaderMap) {
        self.body.push_trailers(trailers);
    }

    /// A store that publishes unfinished responses makes them readable here.
    fn flush(&mut self) {}
}

/// The bytes of a result, which keep the result and its charge.
pub(crate) struct SharedBody(pub(crate) Arc<StoredResult>);

impl AsRef<[u8]> for SharedBody {
    fn as_ref(&self) -> &[u8] {
        &self.0.body.bytes
    }
}
