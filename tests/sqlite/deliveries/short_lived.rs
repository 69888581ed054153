//! The processes that end jobs or lease deliveries until they are killed.

use std::{
    env,
    fs::{self, OpenOptions},
    future::pending,
    io::Write,
    path::{Path, PathBuf},
};

use tower_accepted::store::{Revisions, Store, sqlite::SqliteStore};

use super::steps::{LONG_LEASE, accept, finish, outbox, take_all};
use crate::{chaos::shared::TestProcess, site::options};

/// The environment variables that start such a process.
const DIRECTORY: &str = "ACCEPTED_DELIVERY_DIRECTORY";
const TASK: &str = "ACCEPTED_DELIVERY_TASK";

/// The name of [`short_lived_process`] in this binary.
const PROCESS_TEST: &str = "deliveries::short_lived::short_lived_process";

/// The task of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Ends jobs by their calls.
    Finish,
    /// Cancels jobs.
    Cancel,
    /// Leases what is due.
    Lease,
}

impl Task {
    const ALL: [Self; 3] = [Self::Finish, Self::Cancel, Self::Lease];

    fn as_str(self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Cancel => "cancel",
            Self::Lease => "lease",
        }
    }
}

/// Starts a process, which notes what it has done.
pub(super) fn start(directory: &Path, task: Task) -> TestProcess {
    let _ = fs::remove_file(notes(directory));
    let log = directory.join("processes.log");
    let mut command = TestProcess::command(PROCESS_TEST, &log);
    command.env(DIRECTORY, directory).env(TASK, task.as_str());
    TestProcess::start(command)
}

/// Returns the ids that the process has noted: of jobs that have ended, or of leased deliveries.
pub(super) fn noted(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(notes(directory)).unwrap_or_default();
    // The last line may be incomplete.
    let lines = text.split_inclusive('\n');
    let lines = lines.filter_map(|line| line.strip_suffix('\n'));
    lines.map(str::to_owned).collect()
}

fn notes(directory: &Path) -> PathBuf {
    directory.join("notes")
}

/// Does a task if the environment says so. This is no test: [`start`] starts it.
#[tokio::test]
#[ignore = "the tests of killed processes start it"]
async fn short_lived_process() {
    let (Ok(directory), Ok(name)) = (env::var(DIRECTORY), env::var(TASK)) else {
        return;
    };
    let directory = Path::new(&directory);
    let task = Task::ALL.into_iter().find(|task| task.as_str() == name);
    let task = task.expect("a task");
    let notes = OpenOptions::new()
        .create(true)
        .append(true)
        .open(notes(directory));
    let mut notes = notes.expect("a file");
    let store = SqliteStore::open(directory.join("jobs.db"), options()).await;
    let store = store.expect("the file opens");
    if task == Task::Lease {
        for delivery in take_all(&outbox(&store), LONG_LEASE).await {
            writeln!(notes, "{}", delivery.id).expect("a note");
        }
        return pending().await;
    }
    loop {
        let (id, claim) = accept(&store, "POST").await;
        if task == Task::Finish {
            finish(&store, &claim).await;
        } else {
            let canceled = store.cancel(id, &Revisions::Any).await;
            canceled.expect("a cancel");
        }
        writeln!(notes, "{id}").expect("a note");
    }
}
