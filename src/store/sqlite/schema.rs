//! The tables, and the versions that they went through.

use rusqlite::{Connection, Transaction};

use super::error::SqliteError;

/// Marks a file as one of this crate: `PRAGMA application_id`. The letters `t202`.
pub(super) const APPLICATION_ID: i64 = 0x7432_3032;

/// The steps from an empty file to the newest version. A released step never changes.
const MIGRATIONS: [&str; 2] = [VERSION_1, VERSION_2];

/// The newest version: `PRAGMA user_version`.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Times are in milliseconds since the Unix epoch. `seq` counts jobs as they are
/// accepted. `rank` is an id as bytes, which orders jobs of one millisecond.
///
/// The body of a response is in its row, if it was never flushed and is small. Otherwise its first
/// bytes are in `part`, and those from `file_start` on in its file. `run` is the attempt that wrote
/// it, `declared` the length that the service declared, and `length` what a reader may read.
const VERSION_1: &str = "
CREATE TABLE process (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    opened_at INTEGER NOT NULL
) STRICT;

CREATE TABLE job (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    rank BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    owner BLOB,
    kind TEXT NOT NULL,
    title TEXT,
    callbacks TEXT,
    key BLOB,
    key_kept_for INTEGER NOT NULL,
    key_keeps TEXT NOT NULL,
    retained_for INTEGER NOT NULL,
    may_rerun INTEGER NOT NULL,
    status TEXT NOT NULL,
    revision INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    has_begun INTEGER NOT NULL,
    process INTEGER,
    claim INTEGER,
    not_before INTEGER NOT NULL,
    started_at INTEGER,
    fraction REAL,
    message TEXT,
    estimated_finish_at INTEGER,
    finished_at INTEGER,
    expires_at INTEGER,
    error TEXT,
    response_status INTEGER,
    content_type BLOB,
    content_length INTEGER,
    retry_after TEXT
) STRICT;
CREATE INDEX job_by_creation ON job (created_at, rank);
CREATE INDEX job_by_owner ON job (owner, created_at, rank) WHERE owner IS NOT NULL;
CREATE INDEX job_waiting ON job (not_before, seq) WHERE process IS NULL AND finished_at IS NULL;
CREATE INDEX job_held ON job (process) WHERE process IS NOT NULL;
CREATE INDEX job_expiring ON job (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE request (
    job INTEGER PRIMARY KEY,
    head BLOB NOT NULL,
    length INTEGER NOT NULL,
    body BLOB,
    file TEXT
) STRICT;
CREATE INDEX request_file ON request (file) WHERE file IS NOT NULL;

CREATE TABLE response (
    job INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    is_complete INTEGER NOT NULL,
    head BLOB NOT NULL,
    declared INTEGER,
    length INTEGER NOT NULL,
    file TEXT,
    file_start INTEGER NOT NULL,
    body BLOB
) STRICT;
CREATE INDEX response_file ON response (file) WHERE file IS NOT NULL;

CREATE TABLE part (
    job INTEGER NOT NULL,
    start INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job, start)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_key (
    key BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    job TEXT NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX key_expiring ON idempotency_key (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE tombstone (
    id TEXT PRIMARY KEY,
    owner BLOB,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_expiring ON tombstone (expires_at);

CREATE TABLE change (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL
) STRICT;

CREATE TABLE totals (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    unfinished INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    file_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, 0);

CREATE VIEW jobs AS SELECT
    job.id,
    job.status,
    job.kind,
    job.title,
    datetime(job.created_at / 1000.0, 'unixepoch', 'subsec') AS created,
    datetime(job.started_at / 1000.0, 'unixepoch', 'subsec') AS started,
    datetime(job.finished_at / 1000.0, 'unixepoch', 'subsec') AS finished,
    datetime(job.expires_at / 1000.0, 'unixepoch', 'subsec') AS expires,
    round(job.fraction * 100, 1) AS percent,
    job.message,
    job.attempts,
    job.error,
    iif(job.error IS NULL OR job.error = 'http_error', job.response_status, NULL) AS response,
    CAST(job.content_type AS TEXT) AS content_type,
    job.content_length AS bytes,
    process.name AS process,
    lower(hex(job.owner)) AS owner
FROM job LEFT JOIN process ON process.number = job.process
ORDER BY job.created_at DESC, job.rank DESC;
";

/// `rank` is the id of the job as bytes, which orders deliveries of one millisecond. `due_at` is
/// set while a delivery is pending, and `expires_at` afterwards. `process` is set while the
/// delivery is leased.
const VERSION_2: &str = "
CREATE TABLE delivery (
    seq INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    target INTEGER NOT NULL,
    rank BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    owner BLOB,
    event TEXT NOT NULL,
    url TEXT NOT NULL,
    receiver TEXT NOT NULL,
    is_get INTEGER NOT NULL,
    state TEXT NOT NULL,
    due_at INTEGER,
    process INTEGER,
    attempts INTEGER NOT NULL,
    last_at INTEGER,
    last_status INTEGER,
    last_failure TEXT,
    expires_at INTEGER,
    body BLOB NOT NULL,
    UNIQUE (job, target)
) STRICT;
CREATE INDEX delivery_by_creation ON delivery (created_at, rank, target);
CREATE INDEX delivery_pending ON delivery (receiver, due_at, created_at)
    WHERE due_at IS NOT NULL;
CREATE INDEX delivery_leased ON delivery (process) WHERE process IS NOT NULL;
CREATE INDEX delivery_expiring ON delivery (expires_at) WHERE expires_at IS NOT NULL;

CREATE VIEW deliveries AS SELECT
    job || '_' || target AS id,
    state,
    event,
    substr(url, 1, min(instr(url || '?', '?'), instr(url || '#', '#')) - 1) AS url,
    datetime(created_at / 1000.0, 'unixepoch', 'subsec') AS created,
    datetime(due_at / 1000.0, 'unixepoch', 'subsec') AS due,
    attempts,
    datetime(last_at / 1000.0, 'unixepoch', 'subsec') AS last,
    last_status AS response,
    last_failure AS failure,
    datetime(expires_at / 1000.0, 'unixepoch', 'subsec') AS expires,
    lower(hex(owner)) AS owner
FROM delivery
ORDER BY created_at DESC, rank DESC, target DESC;
";

/// Returns a number that a pragma reads.
pub(super) fn pragma(connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Brings the tables to the newest version.
pub(super) fn migrate(transaction: &Transaction<'_>, from: i64) -> Result<(), SqliteError> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}
