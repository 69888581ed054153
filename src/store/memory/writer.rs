//! Writes the response of a job in memory.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, response};

use super::{
    body::StoredBody,
    ended::{StoredOutcome, StoredResponse},
    live::LiveResponse,
    packed::Packed,
    table::JobTable,
    unfinished::UnfinishedJob,
};
use crate::{
    limit::{Charge, MAX_COPIED_BYTES, Purpose, ResponseRoom, compact, compact_fields},
    store::{NoRoom, Writer},
};

/// Writes the response of a job in memory: [`Store::respond`](crate::store::Store::respond).
///
/// The only frame of a response stays in here. A response of several frames, and one whose body is
/// pending, is published to be read while it is written.
pub struct MemoryWriter {
    // Boxed, because the layer moves a writer several times.
    state: Box<WriterState>,
}

struct WriterState {
    table: Arc<JobTable>,
    job: Arc<UnfinishedJob>,
    head: response::Parts,
    length: Option<u64>,
    body: WrittenBody,
    trailers: Option<HeaderMap>,
    /// The charge until the response is published. `None` until there was room for anything.
    charge: Option<Charge>,
    room: ResponseRoom,
}

enum WrittenBody {
    One(Bytes),
    Live(LiveWriter),
}

/// The right to complete a live response. If it is dropped before, the response breaks off.
struct LiveWriter(Arc<LiveResponse>);

impl Drop for LiveWriter {
    fn drop(&mut self) {
        self.0.close();
        self.0.notify();
    }
}

impl MemoryWriter {
    pub(super) fn new(
        table: Arc<JobTable>,
        job: Arc<UnfinishedJob>,
        head: response::Parts,
        length: Option<u64>,
    ) -> Self {
        let room = ResponseRoom::new(table.budget());
        Self {
            state: Box::new(WriterState {
                room,
                table,
                job,
                head,
                length,
                body: WrittenBody::One(Bytes::new()),
                trailers: None,
                charge: None,
            }),
        }
    }

    /// Completes the response, and returns it as the store keeps it.
    pub(super) fn finish(mut self) -> StoredOutcome {
        let state = &mut *self.state;
        let (status, trailers) = (state.head.status, state.trailers.take());
        let response = match &mut state.body {
            WrittenBody::One(bytes) => {
                let body = StoredBody::One(mem::take(bytes));
                StoredResponse {
                    packed: Packed::new(status, &state.head.headers, trailers.as_ref(), body),
                    charge: state.charge.take(),
                }
            }
            WrittenBody::Live(live) => {
                live.0.complete(trailers);
                StoredResponse::from_live(&live.0)
            }
        };
        StoredOutcome::Response(status, response)
    }
}

impl WriterState {
    /// Makes the response readable, if there was room for it.
    fn publish(&mut self) {
        let WrittenBody::One(data) = &mut self.body else {
            return;
        };
        let Some(charge) = self.charge.take() else {
            return;
        };
        compact_fields(&mut self.head.headers);
        let (status, headers) = (self.head.status, self.head.headers.clone());
        let live = Arc::new(LiveResponse::new(status, headers, self.length, charge));
        live.push(mem::take(data));
        self.job.publish(live.clone());
        self.body = WrittenBody::Live(LiveWriter(live));
    }
}

impl Writer for MemoryWriter {
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let state = &mut *self.state;
        let table = &state.table;
        let reserve = |bytes| table.reserve(bytes, Purpose::Response);
        let Some(charge) = ready!(state.room.poll_reserve(bytes, cx, reserve)) else {
            return Poll::Ready(Err(NoRoom::new()));
        };
        match (&state.body, &mut state.charge) {
            (WrittenBody::Live(live), _) => live.0.hold(charge),
            (WrittenBody::One(_), Some(all)) => all.merge(charge),
            (WrittenBody::One(_), none) => *none = Some(charge),
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        let state = &mut *self.state;
        if let WrittenBody::One(first) = &mut state.body {
            if first.is_empty() {
                // The end copies a small frame.
                *first = if data.len() > MAX_COPIED_BYTES {
                    compact(data)
                } else {
                    data
                };
                return;
            }
            state.publish();
        }
        if let WrittenBody::Live(live) = &state.body {
            live.0.push(data);
        }
    }

    fn push_trailers(&mut self, mut trailers: HeaderMap) {
        compact_fields(&mut trailers);
        match &mut self.state.trailers {
            Some(all) => all.extend(trailers),
            none => *none = Some(trailers),
        }
    }

    fn flush(&mut self) {
        match &self.state.body {
            WrittenBody::One(_) => self.state.publish(),
            WrittenBody::Live(live) => live.0.notify(),
        }
    }
}

impl fmt::Debug for MemoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWriter")
            .field("status", &self.state.head.status)
            .finish_non_exhaustive()
    }
}
