//! Reads the parts of a response, while it is produced and afterwards.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use rusqlite::{Connection, OptionalExtension};

use super::{
    bodies::BodyRoot,
    changes::FollowedJob,
    clock::{Millis, unix_now},
    error::SqliteError,
    output::{Look, MAX_FRAME_BYTES},
    process::Process,
    response::decode_head,
};
use crate::{
    JobId,
    protocol::BoxError,
    store::{Charge, ResultBody},
};

/// The largest part that is read without a charge, in bytes.
const SMALL_BYTES: usize = 4 * 1024;

/// Reads the body of a response part by part. It keeps at most one part in memory.
pub(super) struct PartReader {
    process: Arc<Process>,
    id: JobId,
    run: u32,
    /// The offset of the next byte.
    offset: u64,
    /// The number of bytes that could be read at the last look.
    length: u64,
    /// Announces changes of an unfinished job.
    followed: Option<FollowedJob>,
    is_done: bool,
}

/// The answer of the file of jobs to a reader.
enum PartLookup {
    Data {
        data: Vec<u8>,
        /// The length of the part that can be read.
        length: u64,
    },
    /// Nothing until the next change.
    Wait,
    /// The end, with trailers.
    End(Option<HeaderMap>),
    /// The job ended without the rest.
    Broken,
    /// The job was removed, or runs again.
    Gone,
}

/// A part of a body, which holds its charge for as long as any of it is in use.
pub(super) struct ChargedPart {
    pub(super) bytes: Vec<u8>,
    pub(super) _charge: Option<Charge>,
}

impl AsRef<[u8]> for ChargedPart {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartReader {
    /// Creates a reader of the response that call `run` has written, from byte `offset` on. Its
    /// first `length` bytes can be read. An unfinished job must be followed.
    pub(super) fn new(
        process: &Arc<Process>,
        (id, run): (JobId, u32),
        (offset, length): (u64, u64),
        followed: Option<FollowedJob>,
    ) -> Self {
        Self {
            process: process.clone(),
            id,
            run,
            offset,
            length,
            followed,
            is_done: false,
        }
    }

    /// Returns a body of the response. `left` is the number of its bytes, if it is known.
    pub(super) fn into_body(self, left: Option<u64>) -> ResultBody {
        let frames = stream::unfold(self, async |mut reader| {
            let frame = reader.next().await?;
            Some((frame, reader))
        });
        ResultBody::streamed(PartsBody {
            frames: Box::pin(frames),
            left,
        })
    }

    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        if self.is_done {
            return None;
        }
        match self.read().await {
            Ok(Some(frame)) => {
                match frame.data_ref() {
                    Some(data) => self.offset += data.len() as u64,
                    None => self.is_done = true,
                }
                Some(Ok(frame))
            }
            Ok(None) => {
                self.is_done = true;
                None
            }
            Err(error) => {
                self.is_done = true;
                Some(Err(error))
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Frame<Bytes>>, BoxError> {
        loop {
            // Created before the look, so that no notification is lost after it.
            let changed = self
                .followed
                .as_ref()
                .map(|followed| followed.job.output_changed.notified());
            let output = self.followed.as_ref().and_then(|job| job.job.output());
            let look = output.map_or(Look::Elsewhere, |output| output.look(self.run, self.offset));
            let found = match look {
                Look::Data(data) => return Ok(Some(Frame::data(data))),
                Look::Wait => PartLookup::Wait,
                Look::Elsewhere => {
                    let (found, charge) = self.find().await?;
                    if let PartLookup::Data { data, length } = found {
                        self.length = length;
                        let data = ChargedPart {
                            bytes: data,
                            _charge: charge,
                        };
                        return Ok(Some(Frame::data(Bytes::from_owner(data))));
                    }
                    found
                }
            };
            match (found, changed) {
                (PartLookup::Data { .. }, _) => {}
                (PartLookup::End(trailers), _) => return Ok(trailers.map(Frame::trailers)),
                (PartLookup::Wait, Some(changed)) => changed.await,
                (PartLookup::Broken, _) => return Err("the response broke off".into()),
                (PartLookup::Gone | PartLookup::Wait, _) => {
                    return Err("the job was removed, or runs again".into());
                }
            }
        }
    }

    /// Reads the next part from the file of jobs.
    async fn find(&self) -> Result<(PartLookup, Option<Charge>), SqliteError> {
        let known = self.length.saturating_sub(self.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let charge = if known > SMALL_BYTES {
            let wanted = known.min(MAX_FRAME_BYTES);
            let charge = self.process.budget.reserve_replay(wanted).await;
            Some(charge.ok_or(SqliteError::NoBudget)?)
        } else {
            None
        };
        let max = charge.as_ref().map_or(SMALL_BYTES, Charge::bytes);
        let root = self.process.shared.bodies.root.clone();
        let (id, run, offset) = (self.id, self.run, self.offset);
        let reading = self
            .process
            .readers
            .read(move |connection| find_part(connection, &root, (id, run), offset, max));
        Ok((reading.await?, charge))
    }
}

/// The row of a response whose body has parts.
struct PartsRow {
    seq: i64,
    is_ended: bool,
    expires_at: Option<Millis>,
    is_complete: bool,
    length: u64,
    file: Option<String>,
    file_start: u64,
}

fn find_part(
    connection: &Connection,
    root: &BodyRoot,
    (id, run): (JobId, u32),
    offset: u64,
    max: usize,
) -> Result<PartLookup, SqliteError> {
    // One snapshot, since a removed row may leave its number to another job.
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(
        "SELECT job.seq, job.finished_at IS NOT NULL, job.expires_at, response.is_complete, \
         response.length, response.file, response.file_start FROM job \
         JOIN response ON response.job = job.seq WHERE job.id = ?1 AND response.run = ?2",
    )?;
    let found = statement.query_row((id.to_string(), run), |row| {
        Ok(PartsRow {
            seq: row.get(0)?,
            is_ended: row.get(1)?,
            expires_at: row.get(2)?,
            is_complete: row.get(3)?,
            length: row.get(4)?,
            file: row.get(5)?,
            file_start: row.get(6)?,
        })
    });
    let Some(row) = found.optional()? else {
        return Ok(PartLookup::Gone);
    };
    if row.expires_at.is_some_and(|at| at <= unix_now()) {
        return Ok(PartLookup::Gone);
    }
    let Some(left) = row.length.checked_sub(offset).filter(|&left| left > 0) else {
        return Ok(match (row.is_complete, row.is_ended) {
            (true, _) => PartLookup::End(trailers(&snapshot, row.seq)?),
            (false, true) => PartLookup::Broken,
            (false, false) => PartLookup::Wait,
        });
    };
    let data = match &row.file {
        Some(name) if offset >= row.file_start => {
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let path = root.file(name);
            let data = File::open(&path)
                .and_then(|file| read_part(file, offset - row.file_start, left.min(max)));
            match data {
                // Removed after this snapshot.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(PartLookup::Gone);
                }
                data => data.map_err(SqliteError::io(path))?,
            }
        }
        _ => rows_from(&snapshot, row.seq, offset, max)?,
    };
    if data.is_empty() {
        return Err(SqliteError::unreadable("a response")("a part is missing"));
    }
    Ok(PartLookup::Data {
        data,
        length: row.length,
    })
}

fn trailers(connection: &Connection, seq: i64) -> Result<Option<HeaderMap>, SqliteError> {
    let mut statement = connection.prepare_cached("SELECT head FROM response WHERE job = ?1")?;
    let head: Vec<u8> = statement.query_row([seq], |row| row.get(0))?;
    Ok(decode_head(&head)?.1)
}

/// Returns at most `max` bytes from `offset` on, of those that are in rows.
fn rows_from(
    connection: &Connection,
    seq: i64,
    offset: u64,
    max: usize,
) -> Result<Vec<u8>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT start, body FROM part WHERE job = ?1 AND start >= \
         (SELECT max(start) FROM part WHERE job = ?1 AND start <= ?2) ORDER BY start",
    )?;
    let mut rows = statement.query((seq, offset))?;
    let mut data = Vec::new();
    while data.len() < max
        && let Some(row) = rows.next()?
    {
        let start: u64 = row.get(0)?;
        let body = row.get_ref(1)?.as_blob();
        let body = body.map_err(SqliteError::unreadable("a part of a response"))?;
        let next = (offset + data.len() as u64).saturating_sub(start);
        let next = usize::try_from(next).unwrap_or(usize::MAX);
        let rest = body.get(next..).unwrap_or_default();
        data.extend_from_slice(&rest[..rest.len().min(max - data.len())]);
    }
    Ok(data)
}

fn read_part(mut file: File, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut part = vec![0; bytes];
    file.read_exact(&mut part)?;
    Ok(part)
}

/// The body of a response that is read in parts.
struct PartsBody {
    frames: Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>,
    left: Option<u64>,
}

impl Body for PartsBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.frames.as_mut().poll_next(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&polled, &mut self.left) {
            let length = frame.data_ref().map_or(0, Bytes::len);
            *left = left.saturating_sub(length as u64);
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
