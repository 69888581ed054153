//! Checks what a power cut has left.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use http::Method;
use http_body_util::BodyExt;
use rusqlite::Connection;
use tower_accepted::{
    ErrorCode, Filter, JobId, Snapshot,
    store::{
        Acceptance, Lookup, NewJob, Queue, Store,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

use super::{
    history::{HistoricJob, History, response_body},
    workload::{new_key, request_head, wait_for_close},
};

/// The maximum number of requests that are taken at a time.
const MAX_TICKETS: usize = 1_000;

/// The result of a check: the error names the broken promise.
type Check = Result<(), String>;

/// Opens the file that a cut at a position of the log has left, and checks all promises.
pub(super) async fn check(root: &Path, history: &History, at: usize) -> Check {
    let path = root.join("jobs.db");
    let options = SqliteOptions::new().retain(Duration::from_secs(3600));
    let store = SqliteStore::open(&path, options).await;
    let store = store.map_err(|error| format!("the file does not open: {error}"))?;
    let checked = check_jobs(&store, history, at).await;
    let checked = checked.and_then(|()| check_tables(root));
    drop(store);
    wait_for_close(&path).await;
    checked
}

async fn check_jobs(store: &SqliteStore, history: &History, at: usize) -> Check {
    let mut found = all_jobs(store).await?;
    let mut waiting = HashMap::new();
    for job in history.jobs.values() {
        if !job.accept.is_attempted(at) {
            break;
        }
        let name = |problem: String| format!("job {} {problem}", job.number);
        let snapshot = found.remove(&job.id);
        check_key(store, job, snapshot.is_some(), at)
            .await
            .map_err(name)?;
        match snapshot {
            None => check_missing(store, job, at).await.map_err(name)?,
            Some(found) if found.status.is_ended() => {
                check_end(store, job, &found, at).await.map_err(name)?;
            }
            Some(_) => {
                check_unfinished(job, at).map_err(name)?;
                waiting.insert(job.id, job);
            }
        }
    }
    if let Some(id) = found.keys().next() {
        return Err(format!("there is an unknown job: {id}"));
    }
    check_requests(store, waiting).await
}

async fn all_jobs(store: &SqliteStore) -> Result<HashMap<JobId, Snapshot>, String> {
    let page = store.list(&Filter::new().limit(MAX_TICKETS)).await;
    let page = page.map_err(|error| format!("the list fails: {error}"))?;
    assert!(page.next.is_none(), "one page has all jobs");
    Ok(page.jobs.into_iter().map(|job| (job.id, job)).collect())
}

async fn check_missing(store: &SqliteStore, job: &HistoricJob, at: usize) -> Check {
    let has_expired = |end: &super::history::HistoricEnd| end.expires && end.step.is_attempted(at);
    let may_be_gone = !job.accept.is_acknowledged(at)
        || job.delete.is_some_and(|delete| delete.is_attempted(at))
        || job.end.as_ref().is_some_and(has_expired);
    let found = store.get(job.id).await.map_err(|error| error.to_string())?;
    match found {
        Lookup::Found(_) => Err("is not in the list".to_owned()),
        _ if may_be_gone => Ok(()),
        gone => Err(format!("was accepted, and is gone: {gone:?}")),
    }
}

async fn check_key(store: &SqliteStore, job: &HistoricJob, is_found: bool, at: usize) -> Check {
    let is_deleted = job.delete.is_some_and(|delete| delete.is_attempted(at));
    let is_known = is_found || job.accept.is_acknowledged(at);
    if !job.has_key || !is_known || is_deleted {
        return Ok(());
    }
    let mut repeat = NewJob::new(JobId::random());
    repeat.key = Some(new_key(job.number, &job.request));
    repeat.join_only = true;
    let head = request_head(job.number, Method::POST);
    let record = store.record(&head, &job.request, None);
    match store.accept(&repeat, record).await {
        Ok(Acceptance::Joined(joined)) if joined.id == job.id => Ok(()),
        Ok(Acceptance::Gone) if !is_found => Ok(()),
        other => Err(format!("is not joined by its key: {other:?}")),
    }
}

async fn check_end(store: &SqliteStore, job: &HistoricJob, found: &Snapshot, at: usize) -> Check {
    if job.delete.is_some_and(|delete| delete.is_acknowledged(at)) {
        return Err("was deleted, and is there again".to_owned());
    }
    let end = job.end.as_ref().filter(|end| end.step.is_attempted(at));
    let is_end_certain = end.is_some_and(|end| end.step.is_acknowledged(at));
    let code = found.error.as_ref().map(|error| error.code);
    // A call that may have begun must not be repeated.
    let may_be_lost = !job.may_rerun && job.begin.is_some_and(|begin| begin.is_attempted(at));
    let is_lost = matches!(code, Some(ErrorCode::Lost | ErrorCode::Shutdown));
    if is_lost && may_be_lost && !is_end_certain {
        return check_part(store, job, found, at).await;
    }
    let Some(end) = end else {
        return Err(format!("has not ended, and is {code:?}"));
    };
    if is_end_certain && end.revision != 0 && found.revision != end.revision {
        let (now, before) = (found.revision, end.revision);
        return Err(format!("ended with revision {before}, and has {now}"));
    }
    let Some((status, body)) = &end.response else {
        return match code {
            Some(ErrorCode::Canceled) => check_part(store, job, found, at).await,
            other => Err(format!("was canceled, and is {other:?}")),
        };
    };
    let reading = store.read(job.id, 0).await;
    let reading = reading.map_err(|error| format!("has no readable result: {error}"))?;
    let response = reading.ok_or("has no result")?.response;
    if response.status().as_u16() != *status {
        return Err(format!(
            "ended with {status}, and has {}",
            response.status()
        ));
    }
    let replayed = response.into_body().collect().await;
    let replayed = replayed.map_err(|error| format!("has a broken result: {error}"))?;
    if replayed.to_bytes() != body {
        return Err("has another result".to_owned());
    }
    Ok(())
}

/// Checks the part of an output that was cut: a reader finds at least what one has seen.
async fn check_part(store: &SqliteStore, job: &HistoricJob, found: &Snapshot, at: usize) -> Check {
    let seen = job.seen_length(at);
    let Some(part) = &found.partial else {
        return match seen {
            0 => Ok(()),
            _ => Err(format!("had {seen} bytes of output, and has none")),
        };
    };
    let length = part.content_length;
    if length < seen {
        return Err(format!("had {seen} bytes of output, and has {length}"));
    }
    let reading = store.read(job.id, 0).await;
    let reading = reading.map_err(|error| format!("has no readable part: {error}"))?;
    let mut body = reading.ok_or("has no part")?.response.into_body();
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        read.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    if read != response_body(job.number, length as usize) {
        return Err(format!("has another part of {length} bytes"));
    }
    Ok(())
}

fn check_unfinished(job: &HistoricJob, at: usize) -> Check {
    if let Some(end) = &job.end
        && end.step.is_acknowledged(at)
    {
        return Err("ended, and waits again".to_owned());
    }
    if let Some(begin) = job.begin
        && begin.is_acknowledged(at)
        && !job.may_rerun
    {
        return Err("has begun, and would be repeated".to_owned());
    }
    Ok(())
}

/// Claims all requests, and compares their bodies.
async fn check_requests(store: &SqliteStore, mut waiting: HashMap<JobId, &HistoricJob>) -> Check {
    while let Some(&missing) = waiting.keys().next() {
        let tickets = store.next(MAX_TICKETS).await;
        let tickets = tickets.map_err(|error| format!("no request is found: {error}"))?;
        if tickets.is_empty() {
            return Err(format!("{} is never delivered", waiting[&missing].number));
        }
        for ticket in tickets {
            let work = store.claim(ticket).await;
            let work = work.map_err(|error| format!("a claim fails: {error}"))?;
            let Some(work) = work else {
                return Err("a request that was delivered cannot be read".to_owned());
            };
            let Some(job) = waiting.remove(&work.id) else {
                return Err(format!("there is an unknown request: {}", work.id));
            };
            if work.body.bytes != job.request {
                return Err(format!("job {} has another request", job.number));
            }
        }
    }
    Ok(())
}

/// Checks the tables, and that they name exactly the files that exist.
fn check_tables(root: &Path) -> Check {
    let fault = |error: rusqlite::Error| format!("a query fails: {error}");
    let connection = Connection::open(root.join("jobs.db")).map_err(fault)?;
    let number = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let integrity = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    let integrity: String = integrity.map_err(fault)?;
    if integrity != "ok" {
        return Err(format!("the file is damaged: {integrity}"));
    }
    for (total, count) in [
        (
            "SELECT unfinished FROM totals",
            "SELECT count(*) FROM job WHERE finished_at IS NULL",
        ),
        (
            "SELECT keys FROM totals",
            "SELECT count(*) FROM idempotency_key",
        ),
        (
            "SELECT file_bytes FROM totals",
            "SELECT coalesce(sum(length), 0) FROM (SELECT length FROM request WHERE file NOT NULL \
             UNION ALL SELECT length - file_start FROM response WHERE file NOT NULL)",
        ),
    ] {
        let (total_now, count_now) = (number(total), number(count));
        if total_now != count_now {
            return Err(format!("{total}: {total_now:?}, and not {count_now:?}"));
        }
    }
    let named = "SELECT file FROM request WHERE file NOT NULL \
         UNION ALL SELECT file FROM response WHERE file NOT NULL ORDER BY file";
    let mut named = connection.prepare(named).map_err(fault)?;
    let named = named.query_map([], |row| row.get(0)).map_err(fault)?;
    let named: Vec<String> = named.collect::<Result<_, _>>().map_err(fault)?;
    // The store removes files that no row names after it has answered.
    let patience = Instant::now() + Duration::from_secs(10);
    let mut existing = existing_bodies(&root.join("jobs.db-bodies"));
    while named != existing && Instant::now() < patience {
        thread::yield_now();
        existing = existing_bodies(&root.join("jobs.db-bodies"));
    }
    if named != existing {
        return Err(format!("files {named:?} are named, and {existing:?} exist"));
    }
    Ok(())
}

/// Lists the files of large bodies.
fn existing_bodies(bodies: &Path) -> Vec<String> {
    let mut existing = Vec::new();
    for process in fs::read_dir(bodies).unwrap() {
        let process = process.unwrap().path();
        for file in fs::read_dir(&process).unwrap() {
            let path = file.unwrap().path();
            if !path.ends_with("lock") {
                let name = path.strip_prefix(bodies).unwrap();
                existing.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    existing.sort_unstable();
    existing
}
