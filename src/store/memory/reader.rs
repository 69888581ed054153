//! Reads the result of an ended job.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::{
    body::StoredBody,
    ended::EndedJob,
    live::{LivePart, LiveResponse},
    packed, reaper,
    table::JobTable,
};
use crate::{
    job::JobId,
    protocol::BoxError,
    store::{Reading, ResultBody},
};

/// A reader of a result: keeps the result, and its bytes counted as a replay.
pub(super) struct ReplayReader {
    table: Arc<JobTable>,
    job: EndedJob,
}

impl ReplayReader {
    /// Waits until replays have room for the result of a job, or for a part of one. Returns `None`
    /// if the job has neither or has been removed.
    pub(super) async fn begin(table: &Arc<JobTable>, id: JobId) -> Option<Arc<Self>> {
        loop {
            // Created before the attempt, so that no release is lost after it.
            let released = table.budget().replay_released();
            // Looked up each time, because a waiting reader must not keep a deleted job.
            let job = table.find_ended(id).filter(EndedJob::is_readable)?;
            if table.readings().begin(id, job.charged(), table.budget()) {
                let table = table.clone();
                return Some(Arc::new(Self { table, job }));
            }
            drop(job);
            released.await;
        }
    }

    /// Reads the response from byte `from` of its body on.
    ///
    /// Its body is a share of this reader. Its fields are not, because a server may keep them for
    /// as long as its connection, as HPACK does.
    pub(super) fn read(self: Arc<Self>, from: u64) -> Reading {
        let bytes = self.job.packed();
        let head = packed::head_len(bytes);
        let unpacked = packed::unpack(&Bytes::copy_from_slice(&bytes[..head]));
        let (length, body) = match self.job.body() {
            Some(StoredBody::Live(response)) => {
                let kept = KeptBody {
                    response: response.clone(),
                    _reader: self.clone(),
                    offset: from,
                    is_ended: false,
                };
                (response.len(), ResultBody::streamed(kept))
            }
            Some(StoredBody::One(_)) => {
                let bytes = Bytes::from_owner(LargeBody(self));
                buffered(bytes, unpacked.trailers, from)
            }
            None => {
                let is_broken = self.job.is_broken();
                let bytes = Bytes::from_owner(PackedBytes(self)).split_off(head);
                let (length, body) = buffered(bytes, unpacked.trailers, from);
                let body = if is_broken { body.break_off() } else { body };
                (length, body)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = unpacked.status;
        *response.headers_mut() = unpacked.headers;
        Reading::new(1, length, response)
    }
}

impl Drop for ReplayReader {
    fn drop(&mut self) {
        let id = self.job.creation().id;
        // The job is still kept here, so its bytes are released only after they count as kept.
        if self.table.readings().end(id, self.table.budget()) {
            reaper::put_back(&self.table, id);
        }
    }
}

/// Returns the length of a body in memory, and the body from byte `from` on.
fn buffered(mut bytes: Bytes, trailers: Option<http::HeaderMap>, from: u64) -> (u64, ResultBody) {
    let length = bytes.len();
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(length);
    let rest = bytes.split_off(from);
    (length as u64, ResultBody::shared(rest, trailers))
}

/// The packed response of a job that is being read.
struct PackedBytes(Arc<ReplayReader>);

impl AsRef<[u8]> for PackedBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.job.packed()
    }
}

/// The large body of a job that is being read.
struct LargeBody(Arc<ReplayReader>);

impl AsRef<[u8]> for LargeBody {
    fn as_ref(&self) -> &[u8] {
        match self.0.job.body() {
            Some(StoredBody::One(bytes)) => bytes,
            Some(StoredBody::Live(_)) | None => &[],
        }
    }
}

/// The body of a result that was written while it was read, for one of its readers.
struct KeptBody {
    response: Arc<LiveResponse>,
    /// Counts the bytes as a replay.
    _reader: Arc<ReplayReader>,
    offset: u64,
    is_ended: bool,
}

impl Body for KeptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        match self.response.part(self.offset) {
            LivePart::Data(chunk) => {
                self.offset += chunk.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            LivePart::End(trailers) => {
                self.is_ended = true;
                Poll::Ready(trailers.map(|all| Ok(Frame::trailers(all))))
            }
            // The response of an ended job has ended.
            LivePart::Broken | LivePart::Wait(_) => {
                self.is_ended = true;
                Poll::Ready(Some(Err("the response broke off".into())))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.response.size_hint(self.offset)
    }
}
