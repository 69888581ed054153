//! Writes the response of a call.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response::Parts};

use super::{
    bodies::MAX_ROW_BYTES,
    cache::CachedJob,
    claim::SqliteClaim,
    error::SqliteError,
    file_task,
    output::FlushedOutput,
    output_file::{OutputFile, PART_BYTES},
    process::Process,
    response::{CompleteBody, CompleteResponse, encode_head},
};
use crate::store::{Charge, NoRoom, Purpose, ResponseRoom, Writer, compact_fields, fields_price};

/// Writes the response of a job in the file: [`Store::respond`](crate::store::Store::respond).
///
/// It collects a small response in memory, and the end of the job stores it. A response that is
/// flushed before is published: its readers get what was committed. The body of a large one goes
/// to a file of its own while it is produced.
pub struct SqliteWriter {
    process: Arc<Process>,
    job: Arc<CachedJob>,
    claim: i64,
    room: ResponseRoom,
    head: Parts,
    declared: Option<u64>,
    trailers: Option<HeaderMap>,
    /// The number of bytes of the body so far.
    length: u64,
    charged: usize,
    /// `None` until there was room for anything.
    charge: Option<Charge>,
    body: WriterBody,
}

enum WriterBody {
    /// Only this writer has it.
    Collected(BytesMut),
    Output {
        output: Arc<FlushedOutput>,
        has_file: bool,
    },
}

impl SqliteWriter {
    pub(super) fn new(
        process: &Arc<Process>,
        claim: &SqliteClaim,
        mut head: Parts,
        declared: Option<u64>,
    ) -> Self {
        compact_fields(&mut head.headers);
        Self {
            process: process.clone(),
            job: claim.job.clone(),
            claim: claim.claim,
            room: ResponseRoom::new(&process.budget),
            head,
            declared,
            trailers: None,
            length: 0,
            charged: 0,
            charge: None,
            body: WriterBody::Collected(BytesMut::new()),
        }
    }

    fn poll_reserve(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let budget = self.room.budget().clone();
        let reserve = |bytes| budget.reserve(bytes, Purpose::Response);
        let Some(charge) = ready!(self.room.poll_reserve(bytes, cx, reserve)) else {
            return Poll::Ready(Err(NoRoom::new()));
        };
        self.charged += charge.bytes();
        match (&self.body, &mut self.charge) {
            (WriterBody::Output { output, .. }, _) => output.hold(charge),
            (WriterBody::Collected(_), Some(all)) => all.merge(charge),
            (WriterBody::Collected(_), none) => *none = Some(charge),
        }
        Poll::Ready(Ok(()))
    }

    /// Shares the response with readers and the writer's thread. Returns `None` if there was no
    /// room for it yet, or if its head cannot be encoded.
    fn share(&mut self) -> Option<&Arc<FlushedOutput>> {
        if let WriterBody::Collected(collected) = &mut self.body {
            let head = encode_head(&self.head, None);
            let head = head.inspect_err(|error| {
                tracing::warn!(%error, "failed to encode the head of a response");
            });
            let head = head.ok()?;
            let charge = self.charge.take()?;
            let owner = (self.job.id, self.claim);
            let output = Arc::new(FlushedOutput::new(owner, head, self.declared, charge));
            output.push(mem::take(collected).freeze());
            self.job.set_output(&output);
            self.body = WriterBody::Output {
                output,
                has_file: false,
            };
        }
        match &self.body {
            WriterBody::Output { output, .. } => Some(output),
            WriterBody::Collected(_) => None,
        }
    }

    /// Completes when there is room for more of a large body.
    fn poll_file_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        if !matches!(self.body, WriterBody::Output { has_file: true, .. }) {
            let row_bytes = match &self.body {
                WriterBody::Output { output, .. } => output.row_bytes(),
                WriterBody::Collected(_) => 0,
            };
            // All that is in memory at a time, unless a single frame is larger.
            let window = 2 * PART_BYTES + row_bytes + fields_price(&self.head.headers);
            let missing = window.saturating_sub(self.charged);
            if ready!(self.poll_reserve(missing, cx)).is_err() {
                return Poll::Ready(Err(NoRoom::new()));
            }
            let Some(output) = self.share() else {
                return Poll::Ready(Err(NoRoom::new()));
            };
            output.begin_file();
            if let WriterBody::Output { has_file, .. } = &mut self.body {
                *has_file = true;
            }
        }
        if let WriterBody::Output { output, .. } = &self.body
            && output.poll_room(cx).is_pending()
        {
            file_task::write(&self.process, &self.job, output);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left, and returns the complete response. The charge is held until its end is
    /// stored.
    pub(super) async fn finish(
        mut self,
    ) -> Result<(CompleteResponse, Option<Charge>), SqliteError> {
        let body = match &mut self.body {
            WriterBody::Collected(collected) => CompleteBody::Row(mem::take(collected).freeze()),
            WriterBody::Output { output, has_file } => {
                if *has_file {
                    output.with_file(OutputFile::write_rest);
                    file_task::write(&self.process, &self.job, output);
                    file_task::settled(output).await;
                    if output.with_file(|file| file.end()) != Some(self.length) {
                        return Err(SqliteError::Closed);
                    }
                } else {
                    output.flush();
                }
                CompleteBody::Output(output.clone())
            }
        };
        let trailers = self.trailers.as_ref();
        let response = CompleteResponse::new(&self.head, trailers, self.length, body);
        let response = response.map_err(SqliteError::unreadable("a response's head"))?;
        Ok((response, self.charge.take()))
    }
}

impl Writer for SqliteWriter {
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        let has_file = matches!(self.body, WriterBody::Output { has_file: true, .. });
        if !has_file && self.charged.saturating_add(bytes) <= MAX_ROW_BYTES {
            return self.poll_reserve(bytes, cx);
        }
        self.poll_file_room(cx)
    }

    fn push(&mut self, data: Bytes) {
        self.length += data.len() as u64;
        match &mut self.body {
            WriterBody::Collected(collected) => collected.extend_from_slice(&data),
            WriterBody::Output { output, .. } => output.push(data),
        }
    }

    fn push_trailers(&mut self, mut trailers: HeaderMap) {
        compact_fields(&mut trailers);
        match &mut self.trailers {
            Some(all) => all.extend(trailers),
            none => *none = Some(trailers),
        }
    }

    /// Has the data committed soon. It is readable from then on.
    fn flush(&mut self) {
        let Some(output) = self.share().cloned() else {
            return;
        };
        if output.flush() {
            self.process.publish(&output);
        }
        file_task::write(&self.process, &self.job, &output);
    }
}

impl fmt::Debug for SqliteWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteWriter")
            .field("status", &self.head.status)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
