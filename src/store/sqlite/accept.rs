//! Accepts a request: job, key and request in one step.

use std::sync::Arc;

use rusqlite::{OptionalExtension, named_params};
use tokio::task::spawn_blocking;

use super::{
    bodies::{BodyFile, MAX_ROW_BYTES, write_body},
    claim::SqliteClaim,
    clock::Millis,
    error::SqliteError,
    process::Process,
    record::SqliteRecord,
    row::JobRow,
    step::Step,
};
use crate::{
    JobId,
    store::{Acceptance, Fingerprint, Lookup, NewJob, NewKey, Purpose},
};

/// The decision of the file about a request.
enum AcceptDecision {
    /// The job exists, and this process has it under this claim.
    New(Box<JobRow>, i64),
    /// An earlier request with the same key has a job, or there is no room.
    NotNew(Acceptance<SqliteClaim>),
}

/// Creates a job for the request, or joins the job of an earlier request with the same key.
pub(super) async fn accept(
    process: Arc<Process>,
    new: NewJob,
    record: SqliteRecord,
) -> Result<Acceptance<SqliteClaim>, SqliteError> {
    let Some(head) = record.head else {
        return Ok(Acceptance::TooLarge);
    };
    let Some(charge) = process.budget.reserve(new.request_bytes, Purpose::Accepted) else {
        return Ok(Acceptance::Full);
    };
    let body = record.body;
    let file = if body.len() > MAX_ROW_BYTES && !new.join_only {
        let (bodies, body) = (process.shared.bodies.clone(), body.clone());
        let path = bodies.root.path().to_owned();
        let written = spawn_blocking(move || write_body(&bodies, &body)).await;
        let written = written.map_err(|_| SqliteError::Closed)?;
        Some(written.map_err(SqliteError::io(path))?)
    } else {
        None
    };
    let may_rerun = match new.key {
        Some(_) => record.may_rerun_with_key,
        None => record.may_rerun,
    };
    let store = process.clone();
    let accepting = process.commit(
        move |step| {
            if let Some(key) = &new.key
                && let Some(repeat) = step.find_repeat(key)?
            {
                return Ok(AcceptDecision::NotNew(repeat));
            }
            if new.join_only || step.has_no_room(new.key.is_some()) {
                return Ok(AcceptDecision::NotNew(Acceptance::Full));
            }
            if step.is_full {
                return Err(SqliteError::Full);
            }
            let mut row = JobRow::new(&new, may_rerun, &step.shared.options);
            let claim = row.hold(step.shared.number);
            step.insert(&mut row, new.key.as_ref(), &head, &body, file.as_ref())?;
            step.hold(row.clone(), claim);
            Ok(AcceptDecision::New(Box::new(row), claim))
        },
        move |decision| match decision {
            AcceptDecision::New(row, claim) => {
                Acceptance::RunHere(SqliteClaim::new(&store, &row, claim, Some(charge)))
            }
            AcceptDecision::NotNew(acceptance) => acceptance,
        },
    );
    accepting.await
}

impl Step<'_> {
    fn has_no_room(&self, has_key: bool) -> bool {
        let options = &self.shared.options;
        let is_reached = |count: u64, max: Option<u64>| max.is_some_and(|max| count >= max);
        is_reached(self.totals.unfinished, options.max_queued)
            || (has_key && is_reached(self.totals.keys, options.max_keys))
    }

    /// Looks for an earlier request with the same key. Removes the key if it has expired.
    fn find_repeat(
        &mut self,
        key: &NewKey,
    ) -> Result<Option<Acceptance<SqliteClaim>>, SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT fingerprint, job, expires_at FROM idempotency_key WHERE key = ?1",
        )?;
        let found = statement.query_row([key.key.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        let found: Option<([u8; 16], String, Option<Millis>)> = found.optional()?;
        let Some((fingerprint, job, expires_at)) = found else {
            return Ok(None);
        };
        let id: JobId = job.parse().map_err(SqliteError::unreadable("a job id"))?;
        if expires_at.is_some_and(|at| at <= self.now) {
            self.free_key(&key.key, id)?;
            return Ok(None);
        }
        if Fingerprint::from_bytes(fingerprint) != key.fingerprint {
            return Ok(Some(Acceptance::KeyReused));
        }
        let lookup = self.load(id)?.map(|row| row.lookup(self.now));
        Ok(Some(match lookup {
            Some(Lookup::Found(job)) => Acceptance::Joined(job),
            Some(Lookup::Gone(_) | Lookup::Unknown) | None => Acceptance::Gone,
        }))
    }

    pub(super) fn insert(
        &mut self,
        row: &mut JobRow,
        key: Option<&NewKey>,
        head: &[u8],
        body: &[u8],
        file: Option<&Arc<BodyFile>>,
    ) -> Result<(), SqliteError> {
        row.insert(self.connection)?;
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO request (job, head, length, body, file) \
             VALUES (:job, :head, :length, :body, :file)",
        )?;
        statement.execute(named_params! {
            ":job": row.seq,
            ":head": head,
            ":length": body.len() as u64,
            ":body": file.is_none().then_some(body),
            ":file": file.map(|file| &file.name),
        })?;
        if let Some(file) = file {
            self.add_file(file, body.len() as u64);
        }
        self.totals.unfinished += 1;
        let Some(key) = key else {
            return Ok(());
        };
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO idempotency_key (key, fingerprint, job) VALUES (?1, ?2, ?3)",
        )?;
        let id = row.id.to_string();
        statement.execute((key.key.as_bytes(), key.fingerprint.as_bytes(), id))?;
        self.totals.keys += 1;
        Ok(())
    }
}
