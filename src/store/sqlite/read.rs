//! Reads the response of a job, while it is produced and afterwards.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, Read, Seek, SeekFrom},
    pin::pin,
    sync::Arc,
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use http::HeaderMap;
use rusqlite::{Connection, OptionalExtension};
use tokio::task::spawn_blocking;

use super::{
    bodies::BodyRoot,
    changes::{FollowedJob, SqliteChanges},
    clock::{Millis, unix_now},
    error::SqliteError,
    process::Process,
    reader::{ChargedPart, PartReader},
    response::decode_head,
};
use crate::{
    JobId, Snapshot,
    store::{Budget, Charge, Reading, ResultBody, fields_price},
};

/// The bytes of a file that are read at a time.
const PART_BYTES: u64 = 256 * 1024;

/// The answer of the file of jobs about a response.
enum ResponseLookup {
    /// The job is unfinished, and has none yet.
    Unfinished,
    Response(Box<ResponseRow>),
    /// There is no such job, or it has ended without a response.
    Nothing,
}

/// A row of the table `response`.
struct ResponseRow {
    /// The number of the call that wrote it.
    run: u32,
    state: RowState,
    head: Vec<u8>,
    declared: Option<u64>,
    length: u64,
    place: BodyPlace,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RowState {
    Unfinished,
    Complete,
    /// The job has ended without the rest.
    Broken,
}

/// The place of a body, or of its part.
enum BodyPlace {
    /// In its row.
    Row,
    /// Whole in a file, which is open and at its first byte to read. It can be read even if the
    /// job is removed meanwhile.
    File(File),
    /// In parts, or still written.
    Parts,
}

/// Reads the response of a job from byte `from` of its body on. Waits until there is one.
pub(super) async fn read(
    process: &Arc<Process>,
    id: JobId,
    from: u64,
) -> Result<Option<Reading>, SqliteError> {
    let is_ended = |job: Snapshot| job.status.is_ended();
    let known = process.shared.cache.get(id, unix_now());
    let followed = (!known.is_some_and(is_ended)).then(|| FollowedJob::new(process, id));
    let row = loop {
        // Created before the look, so that no notification is lost after it.
        let changed = followed
            .as_ref()
            .map(|followed| followed.job.output_changed.notified());
        match (find(process, id, from).await?, changed) {
            (ResponseLookup::Response(row), _) => break row,
            (ResponseLookup::Unfinished, Some(changed)) => changed.await,
            (ResponseLookup::Unfinished | ResponseLookup::Nothing, _) => {
                if followed.is_some() {
                    see_end(process, id).await;
                }
                return Ok(None);
            }
        }
    };
    let (run, length) = (row.run, row.length);
    let (response, trailers) = decode_head(&row.head)?;
    let left = length.saturating_sub(from);
    let body = match (row.state, row.place) {
        (RowState::Unfinished, _) => {
            let reader = PartReader::new(process, (id, run), (from, length), followed);
            let declared = row.declared;
            reader.into_body(declared.map(|length| length.saturating_sub(from)))
        }
        (RowState::Complete, BodyPlace::Row) if left > 0 => {
            let charge = reserve(&process.budget, left, trailers.as_ref()).await?;
            let Some(bytes) = read_row(process, (id, run), from.min(length)).await? else {
                return Ok(None);
            };
            ResultBody::new(bytes.into(), trailers).with_charge(charge)
        }
        (state, place) => {
            let body = match place {
                _ if left == 0 => ResultBody::new(Bytes::new(), trailers),
                BodyPlace::File(file) => read_file(process.budget.clone(), file, left, trailers),
                BodyPlace::Row | BodyPlace::Parts => {
                    // Trailers need a message that is not framed by its length.
                    let hint = trailers.is_none().then_some(left);
                    PartReader::new(process, (id, run), (from, length), None).into_body(hint)
                }
            };
            match state {
                RowState::Broken => body.break_off(),
                _ => body,
            }
        }
    };
    let response = response.map(|()| body);
    Ok(Some(Reading::new(run, length, response)))
}

/// Waits until this process knows that a job has ended or was removed. The file may have an end of
/// another process first.
async fn see_end(process: &Arc<Process>, id: JobId) {
    let mut changes = pin!(SqliteChanges::new(process, id));
    while poll_fn(|cx| changes.as_mut().poll_next(cx)).await.is_some() {}
}

async fn reserve(
    budget: &Budget,
    bytes: u64,
    trailers: Option<&HeaderMap>,
) -> Result<Charge, SqliteError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let bytes = bytes.saturating_add(trailers.map_or(0, fields_price));
    let charge = budget.reserve_replay(bytes).await;
    charge.ok_or(SqliteError::NoBudget)
}

/// Finds the response of a job.
async fn find(process: &Arc<Process>, id: JobId, from: u64) -> Result<ResponseLookup, SqliteError> {
    let root = process.shared.bodies.root.clone();
    let reading = process
        .readers
        .read(move |connection| find_response(connection, &root, id, from));
    reading.await
}

/// The columns of a response that say where its body is.
struct ResponseColumns {
    is_complete: bool,
    head: Vec<u8>,
    has_body: bool,
    file: Option<String>,
    file_start: u64,
}

fn find_response(
    connection: &Connection,
    root: &BodyRoot,
    id: JobId,
    from: u64,
) -> Result<ResponseLookup, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT job.finished_at IS NOT NULL, job.expires_at, response.run, response.is_complete, \
         response.head, response.declared, response.length, response.body IS NOT NULL, \
         response.file, response.file_start \
         FROM job LEFT JOIN response ON response.job = job.seq WHERE job.id = ?1",
    )?;
    let mut rows = statement.query([id.to_string()])?;
    let Some(row) = rows.next()? else {
        return Ok(ResponseLookup::Nothing);
    };
    let is_ended: bool = row.get(0)?;
    let expires_at: Option<Millis> = row.get(1)?;
    if expires_at.is_some_and(|at| at <= unix_now()) {
        return Ok(ResponseLookup::Nothing);
    }
    let Some(run) = row.get(2)? else {
        return Ok(if is_ended {
            ResponseLookup::Nothing
        } else {
            ResponseLookup::Unfinished
        });
    };
    let length = row.get(6)?;
    let columns = ResponseColumns {
        is_complete: row.get(3)?,
        head: row.get(4)?,
        has_body: row.get(7)?,
        file: row.get(8)?,
        file_start: row.get(9)?,
    };
    let state = match (columns.is_complete, is_ended) {
        (true, _) => RowState::Complete,
        (false, true) => RowState::Broken,
        (false, false) => RowState::Unfinished,
    };
    let place = match &columns.file {
        _ if columns.has_body => BodyPlace::Row,
        Some(name) if columns.file_start == 0 && state != RowState::Unfinished => {
            let path = root.file(name);
            let opened = File::open(&path).and_then(|mut file| {
                file.seek(SeekFrom::Start(from.min(length)))?;
                Ok(file)
            });
            match opened {
                // The job was removed after this query.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(ResponseLookup::Nothing);
                }
                opened => BodyPlace::File(opened.map_err(SqliteError::io(path))?),
            }
        }
        _ => BodyPlace::Parts,
    };
    Ok(ResponseLookup::Response(Box::new(ResponseRow {
        run,
        state,
        head: columns.head,
        declared: row.get(5)?,
        length,
        place,
    })))
}

/// Reads a body that is in its row, from byte `from` on. Returns `None` if the job was removed.
async fn read_row(
    process: &Arc<Process>,
    (id, run): (JobId, u32),
    from: u64,
) -> Result<Option<Vec<u8>>, SqliteError> {
    let reading = process.readers.read(move |connection| {
        let mut statement = connection.prepare_cached(
            "SELECT substr(response.body, 1 + ?3) FROM job \
             JOIN response ON response.job = job.seq WHERE job.id = ?1 AND response.run = ?2",
        )?;
        let body = statement.query_row((id.to_string(), run, from), |row| row.get(0));
        Ok(body.optional()?)
    });
    reading.await
}

/// Returns a body that is read from a file while it is sent.
fn read_file(budget: Budget, file: File, length: u64, trailers: Option<HeaderMap>) -> ResultBody {
    let parts = stream::try_unfold((file, length), move |(file, left)| {
        let budget = budget.clone();
        async move {
            if left == 0 {
                return Ok(None);
            }
            let bytes = usize::try_from(left.min(PART_BYTES)).unwrap_or(usize::MAX);
            let charge = budget.reserve_replay(bytes).await;
            let charge = charge.ok_or(SqliteError::NoBudget)?;
            let (file, part) = spawn_blocking(move || read_part(file, bytes))
                .await
                .map_err(|_| SqliteError::Closed)??;
            let part = ChargedPart {
                bytes: part,
                _charge: Some(charge),
            };
            let rest = (file, left - bytes as u64);
            Ok::<_, crate::protocol::BoxError>(Some((Bytes::from_owner(part), rest)))
        }
    });
    ResultBody::from_stream(parts, length, trailers)
}

fn read_part(mut file: File, bytes: usize) -> io::Result<(File, Vec<u8>)> {
    let mut part = vec![0; bytes];
    file.read_exact(&mut part)?;
    Ok((file, part))
}
