//! Connections that read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::error::SqliteError;

/// The number of reads at a time.
const MAX_READERS: usize = 4;

/// The time that a read waits while another process recovers the log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that read, each for one query at a time.
///
/// No transaction outlives its query: an old snapshot would keep the log from being reused.
pub(super) struct Readers {
    path: PathBuf,
    /// Held for a push or a pop.
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// Runs a query on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| SqliteError::Closed)?;
        let (path, idle) = (self.path.clone(), self.idle.clone());
        let reading = spawn_blocking(move || {
            // The guard is released with this statement.
            let connection = idle.lock().pop();
            let connection = match connection {
                Some(connection) => connection,
                None => open(&path)?,
            };
            let found = query(&connection);
            idle.lock().push(connection);
            drop(permit);
            found
        });
        reading.await.unwrap_or(Err(SqliteError::Closed))
    }
}

/// Opens a connection that only reads. It must be able to write the index of the log.
pub(super) fn open(path: &Path) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}
