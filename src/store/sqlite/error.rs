//! The error type of the store.

use std::{error, fmt, io, path::PathBuf};

use rusqlite::ErrorCode;

/// An error of [`SqliteStore`](super::SqliteStore).
#[derive(Debug)]
#[non_exhaustive]
pub enum SqliteError {
    /// The file is not a SQLite database, or belongs to another application.
    Foreign(PathBuf),
    /// The file is damaged. Restore a backup.
    Damaged {
        /// The path of the file.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// A newer version of this crate has written the file.
    NewerSchema {
        /// The path of the file.
        path: PathBuf,
        /// The schema version of the file.
        found: i64,
        /// The newest schema version that this version of the crate can use.
        supported: i64,
    },
    /// An older version of this crate is using the file, which has to be upgraded. Stop the
    /// processes of that version first.
    InUse(PathBuf),
    /// SQLite is older than 3.51.3, which is the first version that never corrupts a write-ahead
    /// log that it resets.
    OldSqlite(&'static str),
    /// The directory is on a network file system, whose locks SQLite cannot rely on.
    NetworkFileSystem {
        /// The path of the directory.
        path: PathBuf,
        /// The name of the file system's type.
        kind: &'static str,
    },
    /// The file has reached [`max_disk_bytes`](super::SqliteOptions::max_disk_bytes).
    Full,
    /// A write did not complete within five seconds: another process holds a lock, or the disk is
    /// slow.
    Busy,
    /// A file or a directory cannot be read or written.
    Io {
        /// The path of the file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no memory budget for a result that is read.
    NoBudget,
    /// SQLite failed otherwise, for example because the disk is full.
    Database(rusqlite::Error),
    /// A stored value cannot be decoded.
    Unreadable {
        /// The name of the value.
        what: &'static str,
        /// The cause.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The thread that writes the file has ended, or the runtime shuts down.
    Closed,
}

impl SqliteError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }

    pub(super) fn unreadable<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        move |source| Self::Unreadable {
            what,
            source: source.into(),
        }
    }

    /// Names the file in errors that are about all of it.
    pub(super) fn at(self, path: &std::path::Path) -> Self {
        match self {
            Self::Database(source) => match source.sqlite_error_code() {
                Some(ErrorCode::NotADatabase) => Self::Foreign(path.into()),
                Some(ErrorCode::DatabaseCorrupt) => Self::Damaged {
                    path: path.into(),
                    source,
                },
                Some(
                    ErrorCode::CannotOpen
                    | ErrorCode::PermissionDenied
                    | ErrorCode::ReadOnly
                    | ErrorCode::SystemIoFailure,
                ) => Self::io(path)(io::Error::other(source)),
                _ => Self::Database(source),
            },
            other => other,
        }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Database(error),
        }
    }
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(path) => write!(
                f,
                "{} is not a file of jobs, and was not changed",
                path.display()
            ),
            Self::Damaged { path, source } => {
                write!(f, "{} is damaged: {source}", path.display())
            }
            Self::NewerSchema {
                path,
                found,
                supported,
            } => write!(
                f,
                "{} has schema version {found}, and this version of tower-accepted supports up to \
                 {supported}: use a newer version of tower-accepted",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{} needs a schema upgrade, but a process of an older version has it open: stop \
                 that process first",
                path.display()
            ),
            Self::OldSqlite(found) => {
                write!(f, "SQLite {found} is too old: 3.51.3 or newer is required")
            }
            Self::NetworkFileSystem { path, kind } => write!(
                f,
                "{} is on a network file system ({kind}), where SQLite's locks are not reliable",
                path.display()
            ),
            Self::Full => f.write_str("the file of jobs has reached max_disk_bytes"),
            Self::Busy => f.write_str(
                "the file of jobs is busy: another process holds a lock, or the disk is slow",
            ),
            Self::NoBudget => f.write_str("not enough memory budget to read the result"),
            Self::Io { path, source } => {
                write!(f, "failed to access {}: {source}", path.display())
            }
            Self::Database(source) => write!(f, "SQLite failed: {source}"),
            Self::Unreadable { what, source } => write!(f, "failed to decode {what}: {source}"),
            Self::Closed => f.write_str("the store has been closed"),
        }
    }
}

impl error::Error for SqliteError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Damaged { source, .. } | Self::Database(source) => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::Unreadable { source, .. } => Some(&**source),
            Self::Foreign(_)
            | Self::NewerSchema { .. }
            | Self::InUse(_)
            | Self::OldSqlite(_)
            | Self::NetworkFileSystem { .. }
            | Self::Full
            | Self::Busy
            | Self::NoBudget
            | Self::Closed => None,
        }
    }
}
