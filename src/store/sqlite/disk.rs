//! The size of the file on the disk, and free pages that go back to the file system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{error::SqliteError, schema::pragma};

/// The number of free pages that stay in the file.
const MAX_FREE_PAGES: i64 = 1_024;

/// The maximum number of pages that one transaction gives back.
const VACUUM_PAGES: i64 = 128;

/// The file on the disk.
pub(super) struct Disk {
    log: PathBuf,
}

impl Disk {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            log: beside(path, "-wal"),
        }
    }

    /// Returns the bytes that database and log take, without free pages.
    pub(super) fn database_bytes(&self, connection: &Connection) -> Result<u64, SqliteError> {
        let pages = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
        let bytes = pages * pragma(connection, "page_size")?;
        Ok(u64::try_from(bytes).unwrap_or(0) + self.log_bytes())
    }

    /// Returns the size of the log. This looks at its name only: opening and closing it would
    /// release SQLite's locks.
    pub(super) fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }
}

/// Returns the path of a file beside the database, whose name has a suffix.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Gives some free pages back to the file system.
pub(super) fn give_back_pages(connection: &Connection) -> Result<(), SqliteError> {
    let mut statement = connection.prepare_cached("PRAGMA freelist_count")?;
    let free: i64 = statement.query_row([], |row| row.get(0))?;
    if free <= MAX_FREE_PAGES {
        return Ok(());
    }
    let vacuum = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
    let mut statement = connection.prepare_cached(&vacuum)?;
    let mut rows = statement.query([])?;
    // Each step frees one page.
    while rows.next()?.is_some() {}
    Ok(())
}
