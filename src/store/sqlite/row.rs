//! A job's row, and the changes that a job goes through.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{
    clock::{Millis, as_millis, from_unix_millis, unix_millis},
    error::SqliteError,
    options::SqliteOptions,
};
use crate::{
    ErrorCode, Event, Failure, JobId, Kind, Outcomes, Owner, Progress, ResponseHead, Snapshot,
    Status,
    store::{CallbackTarget, Key, Lookup, NewJob},
};

/// The statement that selects rows, as [`JobRow::read`] reads them.
macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "SELECT seq, id, created_at, owner, kind, title, callbacks, key, key_kept_for, \
             key_keeps, may_rerun, status, revision, attempts, deaths, has_begun, process, claim, \
             not_before, started_at, fraction, message, estimated_finish_at, finished_at, \
             expires_at, error, response_status, content_type, content_length, retry_after, \
             retained_for FROM job ",
            $rest
        )
    };
}
pub(super) use select_jobs;

/// A row of the table `job`.
#[derive(Debug, Clone)]
pub(super) struct JobRow {
    /// 0 until the row is inserted.
    pub(super) seq: i64,
    pub(super) id: JobId,
    pub(super) created_at: Millis,
    pub(super) owner: Option<Owner>,
    pub(super) kind: Kind,
    pub(super) title: Option<Arc<str>>,
    pub(super) callbacks: Option<Arc<[CallbackTarget]>>,
    pub(super) key: Option<Key>,
    /// The time that the key is remembered, from the end of the job.
    pub(super) key_kept_for: Millis,
    /// The time that the job is kept, from its end. A process that only observes may end it.
    pub(super) retained_for: Millis,
    pub(super) outcomes: Outcomes,
    pub(super) may_rerun: bool,
    pub(super) status: Status,
    pub(super) revision: u64,
    /// The number of claims, without those that were handed back before the call began.
    pub(super) attempts: u32,
    /// The number of processes that died while they ran the request.
    pub(super) deaths: u32,
    /// Set while a claim is held whose call may have begun.
    pub(super) has_begun: bool,
    /// The number of the process that has the job.
    pub(super) process: Option<i64>,
    /// The last claim, which identifies it among all claims.
    pub(super) claim: Option<i64>,
    /// The earliest time of the next claim.
    pub(super) not_before: Millis,
    pub(super) started_at: Option<Millis>,
    pub(super) progress: Progress,
    pub(super) estimated_finish_at: Option<Millis>,
    pub(super) finished_at: Option<Millis>,
    pub(super) expires_at: Option<Millis>,
    pub(super) error: Option<ErrorCode>,
    /// The head of the response, or of the part of one that can be read.
    pub(super) response: Option<ResponseHead>,
}

impl JobRow {
    /// Creates the row of a job that its accepting process runs.
    pub(super) fn new(new: &NewJob, may_rerun: bool, options: &SqliteOptions) -> Self {
        let key_kept_for = new.key.and_then(|key| key.keep_for);
        let key_kept_for = key_kept_for.unwrap_or_else(|| options.key_retention());
        let created_at = unix_millis(new.created_at);
        let started_at = new.started.map(|at| {
            let waited = at.saturating_duration_since(new.created);
            unix_millis(new.created_at + waited)
        });
        Self {
            seq: 0,
            id: new.id,
            created_at,
            owner: new.owner,
            kind: new.kind.clone(),
            title: new.title.clone(),
            callbacks: new.callbacks.clone(),
            key: new.key.map(|key| key.key),
            key_kept_for: as_millis(key_kept_for),
            retained_for: as_millis(options.retain),
            outcomes: new.key.map(|key| key.outcomes).unwrap_or_default(),
            may_rerun,
            status: match started_at {
                Some(_) => Status::Running,
                None => Status::Queued,
            },
            revision: 1,
            attempts: 1,
            deaths: 0,
            // A request that may run again needs no step of its own before its call.
            has_begun: may_rerun || started_at.is_some(),
            process: None,
            claim: None,
            not_before: 0,
            started_at,
            progress: new.progress.clone(),
            estimated_finish_at: new.estimated_finish.map(unix_millis),
            finished_at: None,
            expires_at: None,
            error: None,
            response: None,
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.finished_at.is_some()
    }

    pub(super) fn is_held_by(&self, claim: i64) -> bool {
        self.process.is_some() && self.claim == Some(claim)
    }

    /// Marks the call as begun, unless it was since its claim.
    pub(super) fn start(&mut self, at: Millis) {
        self.has_begun = true;
        if let Some(status) = self.status.next(Event::Started) {
            self.revision += 1;
            self.status = status;
            self.started_at = Some(at);
        }
    }

    /// Gives the job to a process, under a new claim.
    pub(super) fn hold(&mut self, process: i64) -> i64 {
        let claim = rand::random();
        self.process = Some(process);
        self.claim = Some(claim);
        claim
    }

    /// Gives a waiting job to a process that will run it again.
    pub(super) fn hold_again(&mut self, process: i64) -> i64 {
        self.revision += 1;
        self.attempts += 1;
        self.not_before = 0;
        self.has_begun = false;
        self.hold(process)
    }

    /// Takes the job from its holder, so that any process may run it. A call that has not begun
    /// does not count.
    pub(super) fn release(&mut self, has_started: bool) {
        self.revision += 1;
        self.process = None;
        self.has_begun = false;
        if has_started {
            // Progress and estimate belong to the earlier call.
            self.progress = Progress::default();
            self.estimated_finish_at = None;
        } else {
            self.attempts = self.attempts.saturating_sub(1);
        }
    }

    /// Replaces the progress. A title in it replaces the job's.
    pub(super) fn set_progress(&mut self, mut progress: Progress) {
        if let Some(title) = progress.title.take() {
            self.title = Some(title);
        }
        self.progress = progress;
    }

    /// Ends the job.
    pub(super) fn end(&mut self, event: Event, now: Millis) {
        self.revision += 1;
        self.status = self.status.next(event).unwrap_or(self.status);
        // A clock that was set back must not make the end earlier than the start.
        let finished_at = now.max(self.started_at.unwrap_or(0)).max(self.created_at);
        self.finished_at = Some(finished_at);
        self.expires_at = Some(now.saturating_add(self.retained_for));
        self.process = None;
        self.estimated_finish_at = None;
        self.error = Failure::from_event(event).map(|failure| failure.code);
    }

    pub(super) fn lookup(&self, now: Millis) -> Lookup {
        if self.expires_at.is_some_and(|at| at <= now) {
            Lookup::Gone(self.owner)
        } else {
            Lookup::Found(Box::new(self.snapshot()))
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(self.id, from_unix_millis(self.created_at));
        snapshot.owner = self.owner;
        snapshot.title = self.title.clone();
        snapshot.callbacks = self.callbacks.clone();
        snapshot.kind = Some(self.kind.clone());
        snapshot.revision = self.revision;
        snapshot.status = self.status;
        // A claim of a job that has not started is not a call yet.
        snapshot.attempt = self.started_at.map_or(0, |_| self.attempts);
        snapshot.started_at = self.started_at.map(from_unix_millis);
        snapshot.finished_at = self.finished_at.map(from_unix_millis);
        snapshot.expires_at = self.expires_at.map(from_unix_millis);
        snapshot.estimated_finish_at = self.estimated_finish_at.map(from_unix_millis);
        snapshot.progress = self.progress.clone();
        snapshot.error = self.error.map(|code| {
            let response = self.response.as_ref();
            let response = response.filter(|_| code == ErrorCode::HttpError);
            Failure::new(code, response.map(|response| response.status))
        });
        match self.error {
            None | Some(ErrorCode::HttpError) => snapshot.response = self.response.clone(),
            Some(_) => snapshot.partial = self.response.clone(),
        }
        snapshot
    }

    /// Reads the row of a job.
    pub(super) fn load(connection: &Connection, id: JobId) -> Result<Option<Self>, SqliteError> {
        let mut statement = connection.prepare_cached(select_jobs!("WHERE id = ?1"))?;
        let row = statement.query_row([id.to_string()], |row| Ok(Self::read(row)));
        row.optional()?.transpose()
    }

    /// Reads a row that [`select_jobs`] selects.
    pub(super) fn read(row: &Row<'_>) -> Result<Self, SqliteError> {
        let text = |column| row.get_ref(column)?.as_str().map_err(bad("a text"));
        let maybe_text = |column| row.get_ref(column)?.as_str_or_null().map_err(bad("a text"));
        let status: Option<u16> = row.get(26)?;
        let response = status.map(|status| {
            let status = StatusCode::from_u16(status).map_err(bad("a status"))?;
            let mut head = ResponseHead::new(status, &Default::default(), row.get(28)?);
            let content_type: Option<Vec<u8>> = row.get(27)?;
            head.content_type = content_type
                .map(|value| HeaderValue::from_bytes(&value).map_err(bad("a content type")))
                .transpose()?;
            head.retry_after = row.get(29)?;
            Ok::<_, SqliteError>(head)
        });
        Ok(Self {
            seq: row.get(0)?,
            id: text(1)?.parse().map_err(bad("a job id"))?,
            created_at: row.get(2)?,
            owner: row.get::<_, Option<[u8; 16]>>(3)?.map(Owner::from_bytes),
            kind: Kind::new(text(4)?),
            title: maybe_text(5)?.map(Arc::from),
            callbacks: maybe_text(6)?
                .map(|json| serde_json::from_str::<Vec<_>>(json).map_err(bad("callbacks")))
                .transpose()?
                .map(Arc::from),
            key: row.get::<_, Option<[u8; 16]>>(7)?.map(Key::from_bytes),
            key_kept_for: row.get(8)?,
            outcomes: match text(9)? {
                "final" => Outcomes::Final,
                _ => Outcomes::All,
            },
            may_rerun: row.get(10)?,
            status: text(11)?.parse().map_err(bad("a job status"))?,
            revision: row.get(12)?,
            attempts: row.get(13)?,
            deaths: row.get(14)?,
            has_begun: row.get(15)?,
            process: row.get(16)?,
            claim: row.get(17)?,
            not_before: row.get(18)?,
            started_at: row.get(19)?,
            progress: Progress {
                fraction: row.get(20)?,
                message: maybe_text(21)?.map(Arc::from),
                ..Progress::default()
            },
            estimated_finish_at: row.get(22)?,
            finished_at: row.get(23)?,
            expires_at: row.get(24)?,
            error: maybe_text(25)?
                .map(|code| code.parse().map_err(bad("an error code")))
                .transpose()?,
            response: response.transpose()?,
            retained_for: row.get(30)?,
        })
    }

    /// Inserts the row.
    pub(super) fn insert(&mut self, connection: &Connection) -> Result<(), SqliteError> {
        let callbacks = self.callbacks.as_deref().map(serde_json::to_string);
        let callbacks = callbacks.transpose().map_err(bad("callbacks"))?;
        let mut statement = connection.prepare_cached(
            "INSERT INTO job (id, rank, created_at, owner, kind, title, callbacks, key, \
             key_kept_for, key_keeps, retained_for, may_rerun, status, revision, attempts, deaths, \
             has_begun, process, claim, not_before, started_at, fraction, message, \
             estimated_finish_at) VALUES (:id, :rank, :created_at, :owner, :kind, :title, \
             :callbacks, :key, :key_kept_for, :key_keeps, :retained_for, :may_rerun, :status, \
             :revision, :attempts, :deaths, :has_begun, :process, :claim, :not_before, \
             :started_at, :fraction, :message, :estimated_finish_at)",
        )?;
        self.seq = statement.insert(named_params! {
            ":id": self.id.to_string(),
            ":rank": self.id.to_bytes(),
            ":created_at": self.created_at,
            ":owner": self.owner.as_ref().map(Owner::as_bytes),
            ":kind": self.kind.as_str(),
            ":title": self.title,
            ":callbacks": callbacks,
            ":key": self.key.as_ref().map(Key::as_bytes),
            ":key_kept_for": self.key_kept_for,
            ":key_keeps": match self.outcomes {
                Outcomes::Final => "final",
                _ => "all",
            },
            ":retained_for": self.retained_for,
            ":may_rerun": self.may_rerun,
            ":status": self.status.as_str(),
            ":revision": self.revision,
            ":attempts": self.attempts,
            ":deaths": self.deaths,
            ":has_begun": self.has_begun,
            ":process": self.process,
            ":claim": self.claim,
            ":not_before": self.not_before,
            ":started_at": self.started_at,
            ":fraction": self.progress.fraction,
            ":message": self.progress.message,
            ":estimated_finish_at": self.estimated_finish_at,
        })?;
        Ok(())
    }

    /// Writes what a running call changes. No index covers it.
    pub(super) fn save_report(&self, connection: &Connection) -> Result<(), SqliteError> {
        let mut statement = connection.prepare_cached(
            "UPDATE job SET status = :status, revision = :revision, has_begun = :has_begun, \
             started_at = :started_at, title = :title, fraction = :fraction, \
             message = :message, estimated_finish_at = :estimated_finish_at WHERE seq = :seq",
        )?;
        statement.execute(named_params! {
            ":seq": self.seq,
            ":status": self.status.as_str(),
            ":revision": self.revision,
            ":has_begun": self.has_begun,
            ":started_at": self.started_at,
            ":title": self.title,
            ":fraction": self.progress.fraction,
            ":message": self.progress.message,
            ":estimated_finish_at": self.estimated_finish_at,
        })?;
        Ok(())
    }

    /// Writes all that can change.
    pub(super) fn save(&self, connection: &Connection) -> Result<(), SqliteError> {
        let response = self.response.as_ref();
        let content_type = response.and_then(|response| response.content_type.as_ref());
        let mut statement = connection.prepare_cached(
            "UPDATE job SET status = :status, revision = :revision, attempts = :attempts, \
             deaths = :deaths, has_begun = :has_begun, process = :process, claim = :claim, \
             not_before = :not_before, started_at = :started_at, title = :title, \
             fraction = :fraction, message = :message, estimated_finish_at = :estimated_finish_at, \
             finished_at = :finished_at, expires_at = :expires_at, error = :error, \
             response_status = :response_status, content_type = :content_type, \
             content_length = :content_length, retry_after = :retry_after WHERE seq = :seq",
        )?;
        statement.execute(named_params! {
            ":seq": self.seq,
            ":status": self.status.as_str(),
            ":revision": self.revision,
            ":attempts": self.attempts,
            ":deaths": self.deaths,
            ":has_begun": self.has_begun,
            ":process": self.process,
            ":claim": self.claim,
            ":not_before": self.not_before,
            ":started_at": self.started_at,
            ":title": self.title,
            ":fraction": self.progress.fraction,
            ":message": self.progress.message,
            ":estimated_finish_at": self.estimated_finish_at,
            ":finished_at": self.finished_at,
            ":expires_at": self.expires_at,
            ":error": self.error.map(ErrorCode::as_str),
            ":response_status": response.map(|response| response.status.as_u16()),
            ":content_type": content_type.map(HeaderValue::as_bytes),
            ":content_length": response.map(|response| response.content_length),
            ":retry_after": response.and_then(|response| response.retry_after.as_deref()),
        })?;
        Ok(())
    }
}

fn bad<E>(what: &'static str) -> impl FnOnce(E) -> SqliteError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    SqliteError::unreadable(what)
}
