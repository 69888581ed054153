//! Shows that the SQLite store and sqlx 0.9 can be used in one application: both link the same
//! `libsqlite3-sys`, whose `links` key allows only one version.

use sqlx::SqlitePool;
use tower_accepted::store::sqlite::{SqliteError, SqliteOptions, SqliteStore};

/// An application with a database of its own and a file of jobs.
pub struct Application {
    /// The application's data.
    pub database: SqlitePool,
    /// Its accepted requests.
    pub jobs: SqliteStore,
}

impl Application {
    /// Opens both.
    ///
    /// # Errors
    ///
    /// Fails if the file of jobs cannot be opened.
    pub async fn open(database: SqlitePool) -> Result<Self, SqliteError> {
        let jobs = SqliteStore::open("jobs.db", SqliteOptions::new()).await?;
        Ok(Self { database, jobs })
    }
}
