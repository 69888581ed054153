//! Reads the response of a job, once the job has ended.

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
use rusqlite::OptionalExtension;
use tokio::task::spawn_blocking;

use super::{
    changes::SqliteChanges, clock::unix_now, error::SqliteError, process::Process,
    response::StoredHead, row::JobRow,
};
use crate::{
    JobId,
    store::{Budget, Charge, Reading, ResultBody, fields_price},
};

/// The bytes of a file that are read at a time.
const PART_BYTES: u64 = 256 * 1024;

/// A row of the table `response`.
struct ResponseRow {
    /// The number of the call that wrote it.
    run: u32,
    head: Vec<u8>,
    length: u64,
    body: Vec<u8>,
    file: Option<File>,
}

/// A part of a file, which holds its charge for as long as any of it is in use.
struct ChargedPart {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedPart {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the response of a job from byte `from` of its body on. Waits for the job's end.
pub(super) async fn read(
    process: &Arc<Process>,
    id: JobId,
    from: u64,
) -> Result<Option<Reading>, SqliteError> {
    let is_unfinished = |job: crate::Snapshot| !job.status.is_ended();
    if process
        .shared
        .cache
        .get(id, unix_now())
        .is_none_or(is_unfinished)
    {
        // The stream ends with the job.
        let mut changes = pin!(SqliteChanges::new(process, id));
        while poll_fn(|cx| changes.as_mut().poll_next(cx)).await.is_some() {}
    }
    let Some(found) = find(process, id, from).await? else {
        return Ok(None);
    };
    let stored: StoredHead = serde_json::from_slice(&found.head)
        .map_err(SqliteError::unreadable("a response's head"))?;
    let (response, trailers) = stored
        .into_head()
        .map_err(SqliteError::unreadable("a response's head"))?;
    let budget = &process.budget;
    let body = match found.file {
        Some(file) if from < found.length => {
            read_file(budget.clone(), file, found.length - from, trailers)
        }
        _ => {
            let charge = reserve(budget, found.body.len(), trailers.as_ref()).await?;
            ResultBody::new(found.body.into(), trailers).with_charge(charge)
        }
    };
    let response = response.map(|()| body);
    Ok(Some(Reading::new(found.run, found.length, response)))
}

async fn reserve(
    budget: &Budget,
    bytes: usize,
    trailers: Option<&HeaderMap>,
) -> Result<Charge, SqliteError> {
    let bytes = bytes + trailers.map_or(0, fields_price);
    let charge = budget.reserve_replay(bytes).await;
    charge.ok_or(SqliteError::NoBudget)
}

/// Finds the response of a job. A file is open and at its first byte to read: it can be read even
/// if the job is removed meanwhile.
async fn find(
    process: &Arc<Process>,
    id: JobId,
    from: u64,
) -> Result<Option<ResponseRow>, SqliteError> {
    let root = process.shared.bodies.root.clone();
    let reading = process.readers.read(move |connection| {
        // One snapshot, since a removed row may leave its number to another job.
        let snapshot = connection.unchecked_transaction()?;
        let Some(job) = JobRow::load(&snapshot, id)? else {
            return Ok(None);
        };
        if job.expires_at.is_none_or(|at| at <= unix_now()) {
            return Ok(None);
        }
        let mut statement = snapshot.prepare_cached(
            "SELECT head, length, substr(body, 1 + min(?2, length)), file FROM response \
             WHERE job = ?1",
        )?;
        let from_in_row = i64::try_from(from).unwrap_or(i64::MAX);
        let found = statement.query_row((job.seq, from_in_row), |row| {
            let body: Option<Vec<u8>> = row.get(2)?;
            let file: Option<String> = row.get(3)?;
            Ok((row.get(0)?, row.get(1)?, body.unwrap_or_default(), file))
        });
        let Some((head, length, body, file)) = found.optional()? else {
            return Ok(None);
        };
        let file = file.map(|name| {
            let path = root.file(&name);
            let opened = File::open(&path).and_then(|mut file| {
                file.seek(SeekFrom::Start(from.min(length)))?;
                Ok(file)
            });
            opened.map_err(SqliteError::io(path))
        });
        Ok(Some(ResponseRow {
            run: job.attempts,
            head,
            length,
            body,
            file: file.transpose()?,
        }))
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
                _charge: charge,
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
