//! Writes the response of a job in memory.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, response};

use super::{
    body::StoredBody, ended::StoredOutcome, live::LiveResponse, packed::Packed, table::JobTable,
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
        self.0.break_off();
    }
}

impl MemoryWriter {
    pub(super) fn new(
        table: Arc<JobTable>,
        job: Arc<UnfinishedJob>,
        head: response::Parts,
    ) -> Self {
        let room = ResponseRoom::new(table.budget());
        Self {
            state: Box::new(WriterState {
                room,
                table,
                job,
                head,
                body: WrittenBody::One(Bytes::new()),
                trailers: None,
                charge: None,
            }),
        }
    }

    /// Completes the response, and returns it as the store keeps it.
    pub(super) fn finish(mut self) -> StoredOutcome {
        let state = &mut *self.state;
        let body = match &mut state.body {
            WrittenBody::One(bytes) => StoredBody::One(mem::take(bytes)),
            WrittenBody::Live(live) => {
                live.0.keep();
                live.0.complete(state.trailers.clone());
                StoredBody::Live(live.0.clone())
            }
        };
        let (status, headers) = (state.head.status, &state.head.headers);
        let packed = Packed::new(status, headers, state.trailers.as_ref(), body);
        let charge = match &state.body {
            // The packed copy is kept, and the live response goes with its last reader.
            WrittenBody::Live(live) if packed.large.is_none() => Some(live.0.take_charge()),
            _ => state.charge.take(),
        };
        StoredOutcome::Response(status, packed, charge)
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
        let live = Arc::new(LiveResponse::new(status, headers, charge));
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
