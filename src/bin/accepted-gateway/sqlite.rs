//! Opens the SQLite file of a gateway's jobs.

use std::path::Path;

use tower::BoxError;
use tower_accepted::{Jobs, JobsBuilder, store::sqlite::SqliteStore};

use crate::cli::Cli;

/// Opens the file to serve its jobs. Creates it if there is none.
pub(crate) async fn open(
    cli: &Cli,
    builder: JobsBuilder,
    file: &Path,
) -> Result<Jobs<SqliteStore>, BoxError> {
    let options = cli.storage.sqlite_options(cli.retain());
    let store = SqliteStore::open(file, options).await?;
    Ok(builder.store(store).try_build()?)
}
