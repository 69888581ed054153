//! The commands on the file of a gateway's jobs, which may be in use.

mod deliveries;
mod document;
mod print;
mod text;

use std::path::{Path, PathBuf};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tower::BoxError;
use tower_accepted::{
    Filter, JobId, Jobs, Snapshot, Status,
    store::{
        DeliveryFilter, DeliveryId, Store,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

use self::{
    deliveries::{DELIVERIES_HEAD, delivery_row, list_deliveries},
    document::JobDocument,
    print::print,
    text::{TABLE_HEAD, fields, table_row},
};

/// The words of the flag `--status`.
const STATUSES: [Status; 5] = [
    Status::Queued,
    Status::Running,
    Status::Succeeded,
    Status::Failed,
    Status::Canceled,
];

/// The error of a command for a job that the file does not have.
const UNKNOWN_JOB: &str = "no such job, or it has expired";

/// The error of a redelivery that is not possible.
const NOT_REDELIVERABLE: &str = "no such delivery, or its receiver has acknowledged it";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a file of jobs, while gateways use it
    ///
    /// The copy has the jobs of one moment, and a gateway can serve it as it is. Large bodies are
    /// copied to TARGET-bodies.
    #[command(verbatim_doc_comment)]
    Backup {
        #[command(flatten)]
        file: FileFlag,

        /// The path of the copy; the file must not exist
        target: PathBuf,
    },
    /// List, show and cancel the jobs of a file, and redeliver callbacks, while gateways use it
    #[command(subcommand)]
    Jobs(JobsCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List jobs, the newest first
    List {
        #[command(flatten)]
        file: FileFlag,

        /// List only jobs of this status
        #[arg(long, value_name = "STATUS", value_parser = status_parser())]
        status: Option<Status>,

        /// The maximum number of jobs to list
        #[arg(
            long,
            value_name = "N",
            default_value_t = 100,
            value_parser = crate::parse::positive
        )]
        limit: usize,

        /// Print one JSON object per line, with the members of the status document
        #[arg(long)]
        json: bool,
    },
    /// Show one job, and in text its callbacks
    Show {
        #[command(flatten)]
        file: FileFlag,

        /// Print a JSON object on one line, with the members of the status document
        #[arg(long)]
        json: bool,

        /// The job's id, the last segment of its address
        #[arg(allow_hyphen_values = true)]
        id: JobId,
    },
    /// Cancel a job
    ///
    /// The gateway that runs the job stops its call. Fails if the job has ended in another way.
    Cancel {
        #[command(flatten)]
        file: FileFlag,

        /// The job's id, the last segment of its address
        #[arg(allow_hyphen_values = true)]
        id: JobId,
    },
    /// List deliveries of callbacks, the newest first
    ///
    /// One that was delivered is listed for a day, and one that has failed for seven days.
    Deliveries {
        #[command(flatten)]
        file: FileFlag,

        /// List only deliveries that have failed for good
        #[arg(long)]
        failed: bool,

        /// List only deliveries that are still to be sent
        #[arg(long, conflicts_with = "failed")]
        pending: bool,

        /// The maximum number of deliveries to list
        #[arg(
            long,
            value_name = "N",
            default_value_t = 100,
            value_parser = crate::parse::positive
        )]
        limit: usize,

        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Send a callback again, at once and with all attempts
    ///
    /// A gateway with --callback-hosts sends it. It keeps its id, so that its receiver can
    /// recognize it. Fails if the receiver has acknowledged it.
    #[command(verbatim_doc_comment)]
    Redeliver {
        #[command(flatten)]
        file: FileFlag,

        /// The delivery's id, as in the list
        #[arg(allow_hyphen_values = true)]
        id: DeliveryId,
    },
}

/// The file that a command works on.
#[derive(Debug, Args)]
pub(crate) struct FileFlag {
    /// The SQLite file of the gateway's jobs
    #[arg(long, value_name = "PATH")]
    store: PathBuf,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Returns an error if the file or the job does not exist, or if the file cannot be used.
    pub(crate) async fn run(self) -> Result<(), BoxError> {
        match self {
            Self::Backup { file, target } => {
                let store = observe(&file.store).await?;
                store.backup_to(&target).await?;
                let copied = format!("Copied {} to {}.\n", file.store.display(), target.display());
                print(&copied)?;
                Ok(())
            }
            Self::Jobs(command) => command.run().await,
        }
    }
}

impl JobsCommand {
    async fn run(self) -> Result<(), BoxError> {
        match self {
            Self::List {
                file,
                status,
                limit,
                json,
            } => {
                let mut filter = Filter::new();
                if let Some(status) = status {
                    filter = filter.status(status);
                }
                list(&file.jobs().await?, filter, limit, json).await
            }
            Self::Show { file, json, id } => show(&file, id, json).await,
            Self::Cancel { file, id } => {
                let job = file.jobs().await?.cancel(id).await?.ok_or(UNKNOWN_JOB)?;
                if job.status != Status::Canceled {
                    return Err(format!("the job has already ended: {}", job.status).into());
                }
                print(&format!("Canceled {id}.\n"))?;
                Ok(())
            }
            Self::Deliveries {
                file,
                failed,
                pending,
                limit,
                json,
            } => {
                let mut filter = DeliveryFilter::new();
                if failed {
                    filter = filter.failed();
                } else if pending {
                    filter = filter.pending();
                }
                list_deliveries(&file.jobs().await?, filter, limit, json).await
            }
            Self::Redeliver { file, id } => {
                if !file.jobs().await?.redeliver(id).await? {
                    return Err(NOT_REDELIVERABLE.into());
                }
                print(&format!("Queued {id}.\n"))?;
                Ok(())
            }
        }
    }
}

impl FileFlag {
    async fn jobs(&self) -> Result<Jobs<SqliteStore>, BoxError> {
        let store = observe(&self.store).await?;
        Ok(Jobs::builder().store(store).try_build()?)
    }
}

/// Prints a job, and in text also its deliveries.
async fn show(file: &FileFlag, id: JobId, json: bool) -> Result<(), BoxError> {
    let store = observe(&file.store).await?;
    let outbox = store.outbox();
    let jobs = Jobs::builder().store(store).try_build()?;
    let job = jobs.get(id).await?.ok_or(UNKNOWN_JOB)?;
    if json {
        print(&json_line(&job)?)?;
        return Ok(());
    }
    let mut text = fields(&job);
    let deliveries = match outbox {
        Some(outbox) => outbox.of_job(id).await?,
        None => Vec::new(),
    };
    if !deliveries.is_empty() {
        text = text + "\n" + DELIVERIES_HEAD;
        text.extend(deliveries.iter().map(delivery_row));
    }
    print(&text)?;
    Ok(())
}

/// Prints jobs page by page: there may be millions.
async fn list(
    jobs: &Jobs<SqliteStore>,
    mut filter: Filter,
    mut limit: usize,
    json: bool,
) -> Result<(), BoxError> {
    if !json && !print(TABLE_HEAD)? {
        return Ok(());
    }
    while limit > 0 {
        filter = filter.limit(limit);
        let page = jobs.list(&filter).await?;
        let mut text = String::new();
        for job in &page.jobs {
            text += &if json {
                json_line(job)?
            } else {
                table_row(job)
            };
        }
        let is_read = print(&text)?;
        let Some(next) = page.next.filter(|_| is_read) else {
            break;
        };
        limit = limit.saturating_sub(page.jobs.len());
        filter = filter.after(next);
    }
    Ok(())
}

fn json_line(job: &Snapshot) -> Result<String, BoxError> {
    let mut line = serde_json::to_string(&JobDocument::new(job))?;
    line.push('\n');
    Ok(line)
}

fn status_parser() -> impl TypedValueParser<Value = Status> {
    let words = PossibleValuesParser::new(STATUSES.map(Status::as_str));
    words.try_map(|word| word.parse::<Status>())
}

/// Opens a file that exists, beside the gateways that serve it.
async fn observe(file: &Path) -> Result<SqliteStore, BoxError> {
    Ok(SqliteStore::open(file, SqliteOptions::new().observer()).await?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn id_may_begin_like_a_flag() {
        for id in ["-hAAAAAAAAAAAAAAAAAAAA", "--AAAAAAAAAAAAAAAAAAAA"] {
            let show = ["accepted-gateway", "jobs", "show", "--store", "jobs.db", id];
            let cli = Cli::try_parse_from(show).expect(id);
            let Some(Command::Jobs(JobsCommand::Show { id: parsed, .. })) = cli.command else {
                panic!("another command");
            };
            assert_eq!(parsed.to_string(), id);
        }
    }
}
