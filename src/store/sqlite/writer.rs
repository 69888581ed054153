//! Collects the response of a call until its job ends.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response::Parts};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    bodies::{BodyWriter, MAX_ROW_BYTES, OwnBodies},
    error::SqliteError,
    response::{CompleteBody, CompleteResponse},
};
use crate::store::{
    Budget, Charge, NoRoom, Purpose, ResponseRoom, Writer, compact_fields, fields_price,
};

/// The bytes of a large body that are written at a time. Twice as many are in memory.
const PART_BYTES: usize = 512 * 1024;

/// The delay before a part is written again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Writes the response of a job in the file: [`Store::respond`](crate::store::Store::respond).
///
/// It collects a small response in memory. The body of a large one goes to a file of its own while
/// it is produced. The end of the job publishes either.
pub struct SqliteWriter {
    bodies: Arc<OwnBodies>,
    room: ResponseRoom,
    charge: Option<Charge>,
    head: Parts,
    trailers: Option<HeaderMap>,
    /// The bytes of the body that are not in the file.
    buffer: BytesMut,
    /// The number of bytes of the body so far.
    length: u64,
    /// The file of a large body.
    file: Option<FileState>,
}

enum FileState {
    Idle(Option<BodyWriter>),
    /// A part is being written, which the future holds until it is on the disk.
    Writing(Pin<Box<dyn Future<Output = Option<BodyWriter>> + Send>>),
}

impl SqliteWriter {
    pub(super) fn new(bodies: &Arc<OwnBodies>, budget: &Budget, mut head: Parts) -> Self {
        compact_fields(&mut head.headers);
        Self {
            bodies: bodies.clone(),
            room: ResponseRoom::new(budget),
            charge: None,
            head,
            trailers: None,
            buffer: BytesMut::new(),
            length: 0,
            file: None,
        }
    }

    fn charged(&self) -> usize {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    fn poll_reserve(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let budget = self.room.budget().clone();
        let reserve = |bytes| budget.reserve(bytes, Purpose::Response);
        let Some(charge) = ready!(self.room.poll_reserve(bytes, cx, reserve)) else {
            return Poll::Ready(Err(NoRoom::new()));
        };
        match &mut self.charge {
            Some(all) => all.merge(charge),
            none => *none = Some(charge),
        }
        Poll::Ready(Ok(()))
    }

    /// Begins to write the buffer to the file, unless a part is being written.
    fn write_part(&mut self) {
        let Some(FileState::Idle(writer)) = &mut self.file else {
            return;
        };
        let (writer, bodies) = (writer.take(), self.bodies.clone());
        let part = mem::take(&mut self.buffer).freeze();
        self.file = Some(FileState::Writing(Box::pin(write_part(
            bodies, writer, part,
        ))));
    }

    /// Completes when no part is being written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(FileState::Writing(writing)) = &mut self.file {
            let writer = ready!(writing.as_mut().poll(cx));
            self.file = Some(FileState::Idle(writer));
        }
        Poll::Ready(())
    }

    /// Writes what is left, and returns the complete response. The charge is held until its end is
    /// stored.
    pub(super) async fn finish(
        mut self,
    ) -> Result<(CompleteResponse, Option<Charge>), SqliteError> {
        std::future::poll_fn(|cx| self.poll_written(cx)).await;
        let body = match self.file.take() {
            Some(FileState::Idle(writer)) => {
                let rest = mem::take(&mut self.buffer).freeze();
                let writer = write_part(self.bodies.clone(), writer, rest).await;
                let writer = writer.ok_or(SqliteError::Closed)?;
                CompleteBody::File(writer.body.clone())
            }
            _ => CompleteBody::Row(mem::take(&mut self.buffer).freeze()),
        };
        let trailers = self.trailers.as_ref();
        let response = CompleteResponse::new(&self.head, trailers, self.length, body);
        let response = response.map_err(SqliteError::unreadable("a response's head"))?;
        Ok((response, self.charge.take()))
    }
}

/// Writes a part of a body, and retries until it succeeds. Returns `None` only if the runtime shuts
/// down.
async fn write_part(
    bodies: Arc<OwnBodies>,
    mut writer: Option<BodyWriter>,
    part: Bytes,
) -> Option<BodyWriter> {
    loop {
        let (bodies, part) = (bodies.clone(), part.clone());
        let writing = spawn_blocking(move || {
            let created = match writer {
                Some(writer) => Ok(writer),
                None => BodyWriter::create(&bodies),
            };
            match created {
                Ok(mut writer) => {
                    let written = writer.append(&part);
                    (Some(writer), written)
                }
                Err(error) => (None, Err(error)),
            }
        });
        let (returned, written) = writing.await.ok()?;
        match written {
            Ok(()) => return returned,
            Err(error) => {
                tracing::warn!(%error, "failed to write the body of a response, retrying");
                writer = returned;
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

impl Writer for SqliteWriter {
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        if self.file.is_none() {
            if self.charged() + bytes <= MAX_ROW_BYTES {
                return self.poll_reserve(bytes, cx);
            }
            // All that is in memory at a time, the head included.
            let window = 2 * PART_BYTES + fields_price(&self.head.headers);
            let missing = window.saturating_sub(self.charged());
            if ready!(self.poll_reserve(missing, cx)).is_err() {
                return Poll::Ready(Err(NoRoom::new()));
            }
            self.file = Some(FileState::Idle(None));
        }
        if self.buffer.len() >= PART_BYTES {
            ready!(self.poll_written(cx));
            self.write_part();
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        self.length += data.len() as u64;
        self.buffer.extend_from_slice(&data);
    }

    fn push_trailers(&mut self, mut trailers: HeaderMap) {
        compact_fields(&mut trailers);
        match &mut self.trailers {
            Some(all) => all.extend(trailers),
            none => *none = Some(trailers),
        }
    }

    /// Has no effect: a response becomes readable when its job ends.
    fn flush(&mut self) {}
}

impl fmt::Debug for SqliteWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteWriter")
            .field("status", &self.head.status)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
