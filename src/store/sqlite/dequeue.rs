//! Takes requests that wait for a worker, and turns them into work.

use std::{fmt, fs, io, sync::Arc, time::Duration};

use http::{HeaderMap, request::Parts};
use rusqlite::{Connection, OptionalExtension};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{
    claim::SqliteClaim,
    clock::{as_millis, from_unix_millis, instant_at, unix_now},
    error::SqliteError,
    process::Process,
    row::JobRow,
    step::Step,
};
use crate::{
    ErrorCode, JobId,
    store::{BufferedBody, Charge, Purpose, StoredRequest, Work, fields_price, request_price},
};

/// The time that [`next`] waits for a request.
const WAIT: Duration = Duration::from_secs(2);

/// The time after which a waiting worker looks again. It learns of requests whose delay is over.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The delay before the next attempt to reserve memory.
const BUDGET_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The time that a claim waits for memory.
const BUDGET_PATIENCE: Duration = Duration::from_secs(5);

/// The delay before a stored request is read again that could not be read.
const READ_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The longest delay before a request runs again.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(600);

/// A request that this process has taken and not claimed yet.
///
/// If it is dropped, the request waits for a worker again.
pub struct SqliteTicket {
    id: JobId,
    /// The bytes of the request.
    bytes: usize,
    process: Arc<Process>,
}

/// Head, body and the name of the body's file.
type RequestRow = (Vec<u8>, Option<Vec<u8>>, Option<String>);

/// A request whose claim has been committed.
struct ClaimedRequest {
    row: JobRow,
    claim: i64,
    head: Vec<u8>,
    body: Vec<u8>,
    file: Option<String>,
}

impl SqliteTicket {
    /// Takes a request, unless this process has a ticket for it.
    fn take(process: &Arc<Process>, id: JobId, bytes: usize) -> Option<Self> {
        let is_new = process.tickets.insert(id);
        is_new.then(|| Self {
            id,
            bytes,
            process: process.clone(),
        })
    }
}

impl Drop for SqliteTicket {
    fn drop(&mut self) {
        self.process.tickets.remove(self.id);
    }
}

impl fmt::Debug for SqliteTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteTicket").field(&self.id).finish()
    }
}

/// Waits for requests, and takes up to `max` of those that wait.
pub(super) async fn next(
    process: &Arc<Process>,
    max: usize,
) -> Result<Vec<SqliteTicket>, SqliteError> {
    process.shared.set_has_worker();
    let deadline = Instant::now() + WAIT;
    loop {
        // Created before the look, so that no notification is lost after it.
        let notified = process.shared.work_waiting.notified();
        let taken = process.tickets.len();
        let waiting = process
            .readers
            .read(move |connection| find_waiting(connection, max + taken));
        let waiting = waiting.await?.into_iter();
        let tickets = waiting.filter_map(|(id, bytes)| SqliteTicket::take(process, id, bytes));
        let tickets: Vec<SqliteTicket> = tickets.take(max).collect();
        if !tickets.is_empty() || Instant::now() >= deadline {
            return Ok(tickets);
        }
        let _ = timeout_at(deadline.min(Instant::now() + POLL_INTERVAL), notified).await;
    }
}

/// Returns the requests that wait longest, and their bytes.
fn find_waiting(connection: &Connection, max: usize) -> Result<Vec<(JobId, usize)>, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT job.id, length(request.head) + request.length FROM job \
         JOIN request ON request.job = job.seq \
         WHERE process IS NULL AND finished_at IS NULL \
         AND (not_before <= ?1 OR not_before > ?2) ORDER BY not_before, seq LIMIT ?3",
    )?;
    let now = unix_now();
    // If the clock was set back, a delay is not as long as it looks.
    let latest = now.saturating_add(as_millis(MAX_DELAY));
    let waiting = statement.query_map((now, latest, max), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut found = Vec::new();
    for row in waiting {
        let (id, bytes): (String, usize) = row?;
        let id = id.parse().map_err(SqliteError::unreadable("a job id"))?;
        found.push((id, bytes));
    }
    Ok(found)
}

/// Claims a request. Returns `None` if it must not run.
pub(super) async fn claim(
    process: &Arc<Process>,
    ticket: SqliteTicket,
) -> Result<Option<Work<SqliteClaim>>, SqliteError> {
    let id = ticket.id;
    let Some(charge) = reserve(process, ticket.bytes).await else {
        return Ok(None);
    };
    let store = process.clone();
    let claiming = process.commit(
        move |step| step.claim(id),
        move |claimed| {
            claimed.map(|claimed| {
                // From now on, dropping this hands the request back.
                let claim = SqliteClaim::new(&store, &claimed.row, claimed.claim, None);
                (claim, claimed)
            })
        },
    );
    let claimed = claiming.await?;
    // The row has the process now, so the request is no longer taken twice.
    drop(ticket);
    let Some((claim, claimed)) = claimed else {
        return Ok(None);
    };
    match prepare(process, claimed.head, claimed.body, claimed.file).await {
        Ok((head, trailers, body)) => Ok(Some(work(
            claim,
            &claimed.row,
            charge,
            head,
            trailers,
            body,
        ))),
        Err(error) => {
            let number = claim.claim;
            if is_permanent(&error) {
                tracing::error!(%error, %id, "failed to read stored request, ending its job");
                let losing = process.commit_with_retries("the end of a job", || {
                    move |step: &mut Step<'_>| step.lose(id, number)
                });
                losing.await?;
            } else {
                tracing::warn!(%error, %id, "failed to read stored request, retrying later");
                let postponing = process.commit_with_retries("the delay of a job", || {
                    move |step: &mut Step<'_>| step.postpone(id, number)
                });
                postponing.await?;
            }
            Ok(None)
        }
    }
}

/// Returns `true` if a request that could not be read can never be read.
fn is_permanent(error: &SqliteError) -> bool {
    match error {
        SqliteError::Unreadable { .. } => true,
        SqliteError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        // For example no file descriptor, or a runtime that shuts down.
        _ => false,
    }
}

/// Waits a while for memory, since running calls may end soon.
async fn reserve(process: &Process, bytes: usize) -> Option<Charge> {
    let bytes = bytes.min(process.budget.share(Purpose::Accepted));
    let deadline = Instant::now() + BUDGET_PATIENCE;
    loop {
        let charge = process.budget.reserve(bytes, Purpose::Accepted);
        if charge.is_some() || Instant::now() >= deadline {
            return charge;
        }
        sleep(BUDGET_RETRY_DELAY).await;
    }
}

type PreparedRequest = (Parts, Option<HeaderMap>, Vec<u8>);

/// Decodes a request, and reads its body.
async fn prepare(
    process: &Process,
    head: Vec<u8>,
    mut body: Vec<u8>,
    file: Option<String>,
) -> Result<PreparedRequest, SqliteError> {
    let unreadable = "a request's head";
    let stored: StoredRequest =
        serde_json::from_slice(&head).map_err(SqliteError::unreadable(unreadable))?;
    let (head, trailers) = stored
        .into_head(&process.shared.options.carried)
        .map_err(SqliteError::unreadable(unreadable))?;
    if let Some(file) = file {
        let path = process.shared.bodies.root.file(&file);
        body = spawn_blocking(move || fs::read(&path).map_err(SqliteError::io(path)))
            .await
            .map_err(|_| SqliteError::Closed)??;
    }
    Ok((head, trailers, body))
}

fn work(
    claim: SqliteClaim,
    row: &JobRow,
    mut charge: Charge,
    head: Parts,
    trailers: Option<HeaderMap>,
    body: Vec<u8>,
) -> Work<SqliteClaim> {
    let price = body.len() + request_price(&head) + trailers.as_ref().map_or(0, fields_price);
    charge.shrink_to(price);
    let body = BufferedBody {
        charge: Some(charge),
        bytes: body.into(),
        trailers: trailers.map(Box::new),
    };
    let mut work = Work::new(claim, row.id, head, body);
    work.created = instant_at(row.created_at);
    work.created_at = from_unix_millis(row.created_at);
    work.kind = row.kind.clone();
    work.is_owned = row.owner.is_some();
    work.callbacks = row.callbacks.clone();
    work.outcomes = row.outcomes;
    work.attempt = row.attempts;
    work
}

impl Step<'_> {
    fn claim(&mut self, id: JobId) -> Result<Option<ClaimedRequest>, SqliteError> {
        let is_free = |row: &JobRow| row.process.is_none() && !row.is_ended();
        let Some(mut row) = self.load(id)?.filter(is_free) else {
            return Ok(None);
        };
        let mut statement = self
            .connection
            .prepare_cached("SELECT head, body, file FROM request WHERE job = ?1")?;
        let request =
            statement.query_row([row.seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let request: Option<RequestRow> = request.optional()?;
        let Some((head, body, file)) = request else {
            return Ok(None);
        };
        let claim = row.hold_again(self.shared.number);
        // The output of the call before, whose bytes are others.
        self.remove_response(row.seq)?;
        self.save(row.clone())?;
        self.hold(row.clone(), claim);
        Ok(Some(ClaimedRequest {
            row,
            claim,
            head,
            body: body.unwrap_or_default(),
            file,
        }))
    }

    /// Returns a claimed job whose request cannot be read now.
    fn postpone(&mut self, id: JobId, claim: i64) -> Result<(), SqliteError> {
        let Some(mut row) = self.load_held(id, claim)? else {
            return Ok(());
        };
        row.release(false);
        row.not_before = self.now.saturating_add(as_millis(READ_RETRY_DELAY));
        self.save(row)
    }

    /// Ends a claimed job whose request cannot be read.
    fn lose(&mut self, id: JobId, claim: i64) -> Result<(), SqliteError> {
        let Some(mut row) = self.load_held(id, claim)? else {
            return Ok(());
        };
        self.end_without_response(&mut row, ErrorCode::Lost)?;
        self.save(row)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{
        Status,
        store::{
            NewJob, Revisions,
            sqlite::{open::open, options::SqliteOptions, shared::Shared, transaction::FileWriter},
        },
    };

    fn new_writer(directory: &TempDir) -> (FileWriter, Arc<Shared>) {
        let options = SqliteOptions::new();
        let file = open(&directory.path().join("jobs.db"), &options).expect("the file opens");
        let shared = Arc::new(Shared::new(&file, options));
        let writer = FileWriter::new(file, shared.clone());
        (writer.expect("totals"), shared)
    }

    fn insert_waiting(writer: &mut FileWriter) -> JobId {
        let id = JobId::random();
        let inserted = writer.transact(1, |step| {
            let mut row = JobRow::new(&NewJob::new(id), false, &SqliteOptions::new());
            row.release(false);
            step.insert(&mut row, None, b"", b"", None)
        });
        inserted.expect("a commit");
        id
    }

    #[test]
    fn cancel_beside_a_claim_ends_the_claim() {
        let directory = TempDir::new().expect("a directory");
        let (mut writer, shared) = new_writer(&directory);
        let id = insert_waiting(&mut writer);
        let mut claimed = None;
        let committed = writer.transact(2, |step| {
            claimed = step.claim(id)?;
            step.cancel(id, &Revisions::Any).map(drop)
        });
        committed.expect("a commit");
        let ClaimedRequest { row, claim, .. } = claimed.expect("a request");
        let (job, lost) = shared.cache.held(row.id, claim);
        assert!(lost.is_cancelled() && job.claim().is_none());
        let job = shared.cache.get(id, unix_now()).expect("a job in memory");
        assert_eq!(job.status, Status::Canceled);
    }

    #[test]
    fn return_beside_a_claim_leaves_the_claim() {
        let directory = TempDir::new().expect("a directory");
        let (mut writer, shared) = new_writer(&directory);
        let id = insert_waiting(&mut writer);
        let mut first = None;
        let mut second = None;
        let committed = writer.transact(1, |step| {
            first = step.claim(id)?;
            Ok(())
        });
        committed.expect("a commit");
        let first = first.expect("a request").claim;
        let committed = writer.transact(2, |step| {
            step.hand_back(id, first, None)?;
            second = step.claim(id)?;
            Ok(())
        });
        committed.expect("a commit");
        let second = second.expect("a request").claim;
        let is_lost = |claim| shared.cache.held(id, claim).1.is_cancelled();
        assert!(is_lost(first) && !is_lost(second));
    }
}
