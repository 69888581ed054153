//! The size of the file on the disk, and free pages that go back to the file system.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

use super::{error::SqliteError, schema::pragma};

/// The number of free pages that stay in the file.
const MAX_FREE_PAGES: i64 = 1_024;

/// The maximum number of pages that one transaction gives back.
const VACUUM_PAGES: i64 = 128;

/// The size of the log after a peak, in bytes.
const LOG_LIMIT: u64 = 64 << 20;

/// The size below which no log is too large, in bytes: twice that of a log between checkpoints.
const MIN_LARGE_LOG: u64 = 16 << 20;

/// The file on the disk.
pub(super) struct Disk {
    log: PathBuf,
    max_log_bytes: u64,
    /// The size of the log at which it must be emptied.
    too_large: u64,
}

impl Disk {
    pub(super) fn new(path: &Path, max_disk_bytes: Option<u64>) -> Self {
        let max_log_bytes = log_limit(max_disk_bytes).max(MIN_LARGE_LOG);
        Self {
            log: beside(path, "-wal"),
            max_log_bytes,
            too_large: max_log_bytes,
        }
    }

    pub(super) fn is_log_too_large(&self) -> bool {
        self.log_bytes() > self.too_large
    }

    /// Empties the log. SQLite itself does so only at a moment without any read, which may never
    /// come.
    ///
    /// This waits for the reads that use the log. A read that begins meanwhile finds all in the
    /// database, so it does not prolong the wait. If a read takes longer, the log stays.
    pub(super) fn empty_log(
        &mut self,
        connection: &Connection,
        patience: Duration,
    ) -> Result<(), SqliteError> {
        let timeout = pragma(connection, "busy_timeout")?;
        connection.busy_timeout(patience)?;
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy = connection.query_row(checkpoint, [], |row| row.get::<_, bool>(0));
        connection.pragma_update(None, "busy_timeout", timeout)?;
        // An attempt costs other work some time, so the log grows for a while before the next one.
        let left = if is_busy? { self.log_bytes() } else { 0 };
        self.too_large = left + self.max_log_bytes;
        Ok(())
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

/// Returns the size of the log after a peak. It must leave room below the maximum, or the file
/// would stay full.
pub(super) fn log_limit(max_disk_bytes: Option<u64>) -> u64 {
    max_disk_bytes.map_or(LOG_LIMIT, |max| LOG_LIMIT.min(max / 8))
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

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{self, TryRecvError},
        thread,
    };

    use tempfile::TempDir;

    use super::*;

    fn begin_read(reader: &Connection) {
        let begin = "BEGIN; SELECT count(*) FROM filler";
        reader.execute_batch(begin).expect("a read");
    }

    fn end_read(reader: &Connection) {
        reader.execute_batch("COMMIT").expect("a read");
    }

    #[test]
    fn log_is_emptied_while_reads_go_on() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("jobs.db");
        let mut disk = Disk::new(&path, Some(0));
        let [writer, one, other] = [(); 3].map(|()| Connection::open(&path).expect("a file"));
        let create = "PRAGMA journal_mode = wal; CREATE TABLE filler (body)";
        writer.execute_batch(create).expect("a table");
        begin_read(&one);
        let fill = "INSERT INTO filler VALUES (zeroblob(17 * 1024 * 1024))";
        writer.execute(fill, []).expect("room");
        assert!(disk.is_log_too_large());
        let timeout = pragma(&writer, "busy_timeout").expect("a number");
        let emptied = disk.empty_log(&writer, Duration::ZERO);
        emptied.expect("a checkpoint");
        // The read began before the row was written.
        assert!(disk.log_bytes() > MIN_LARGE_LOG && !disk.is_log_too_large());
        let (stop, stopped) = mpsc::channel::<()>();
        let reading = thread::spawn(move || {
            // One of them reads at each moment.
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                for (old, new) in [(&one, &other), (&other, &one)] {
                    begin_read(new);
                    end_read(old);
                }
            }
        });
        let emptied = disk.empty_log(&writer, Duration::from_secs(60));
        drop(stop);
        reading.join().expect("no panic");
        emptied.expect("a checkpoint");
        assert_eq!(disk.log_bytes(), 0);
        let restored = pragma(&writer, "busy_timeout").expect("a number");
        assert_eq!(restored, timeout);
    }
}
