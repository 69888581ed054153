//! A file of jobs, and the processes that share it.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;
use tower_accepted::{
    Jobs, JobsBuilder,
    store::sqlite::{SqliteOptions, SqliteStore},
};

/// Returns options with a retention that tests outlast.
pub(crate) fn options() -> SqliteOptions {
    SqliteOptions::new()
        .retain(Duration::from_secs(120))
        .retry_delay(Duration::from_millis(200))
}

/// Returns a registry of the jobs in a store.
pub(crate) fn registry(builder: JobsBuilder, store: SqliteStore) -> Jobs<SqliteStore> {
    builder.store(store).build()
}

/// A directory with a file of jobs.
pub(crate) struct Home {
    directory: TempDir,
    pub(crate) options: SqliteOptions,
}

impl Home {
    pub(crate) fn new(options: SqliteOptions) -> Self {
        Self {
            directory: TempDir::new().expect("a temporary directory"),
            options,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("jobs.db")
    }

    /// Opens the file as another process does.
    pub(crate) async fn store(&self) -> SqliteStore {
        let store = SqliteStore::open(self.path(), self.options.clone()).await;
        store.expect("the file opens")
    }
}
