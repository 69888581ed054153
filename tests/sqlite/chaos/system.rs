//! The system under test: two processes on one file.

use std::{collections::HashSet, fs, net::TcpListener, thread, time::Duration};

use futures_util::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

use super::{
    PROCESSES, audit,
    client::Client,
    faults::{kill, kill_servers},
    journal,
    report::Report,
    server::{self, start_server},
    shared::{Diary, TestProcess},
    submission::{Fate, send_all},
};

/// The time for all jobs to end after the last request.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The number of lines of the log that are printed if the test fails.
const LOG_LINES: usize = 100;

/// The number of jobs that are read again at a time.
const CONCURRENT_READS: usize = 16;

pub(super) struct System {
    servers: Vec<TestProcess>,
    client: Client,
    seed: u64,
    directory: TempDir,
    diary: Diary,
}

impl System {
    pub(super) fn start(seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut servers, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..PROCESSES {
            // It stays open when its process dies: no other program gets the port.
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address");
            addresses.push(address.to_string());
            servers.push(start_server(directory.path(), listener));
        }
        Self {
            servers,
            client: Client::new(addresses.try_into().expect("one for each process")),
            seed,
            directory,
            diary: Diary::new(),
        }
    }

    /// Sends requests while processes are killed, and follows every accepted job to its end. Then
    /// kills both processes and reads all jobs again.
    pub(super) async fn run(&mut self, jobs: usize) -> Report {
        let mut random = StdRng::seed_from_u64(self.seed);
        let client_seed = random.random();
        let (sent, all_sent) = watch::channel(false);
        let client = self.client.clone();
        let sending = async {
            let fates = send_all(&client, jobs, client_seed).await;
            sent.send_replace(true);
            fates
        };
        let killing = kill_servers(&mut self.servers, random, all_sent, &self.diary);
        let (fates, ()) = tokio::join!(sending, killing);
        let fates = timeout(SETTLE_TIMEOUT, fates.join_all()).await;
        let fates = fates.expect("all jobs end");
        assert_eq!(fates.len(), jobs, "a request without an answer");
        self.servers.iter_mut().for_each(kill);
        self.servers.iter_mut().for_each(TestProcess::restart);
        self.read_again(&fates).await;
        let not_found = std::mem::take(&mut *self.client.not_found.lock());
        let killed: HashSet<u32> = self
            .servers
            .iter()
            .flat_map(|server| server.killed.clone())
            .collect();
        Report {
            fates,
            calls: journal::read(&server::journal(self.directory.path())),
            not_found,
            killed,
            duration: self.diary.elapsed(),
            faults: self.diary.text(),
        }
    }

    /// Checks that both processes still have each end as a client saw it first.
    async fn read_again(&self, fates: &[Fate]) {
        let known = fates.iter().filter_map(|fate| {
            let (location, end) = fate.job.as_ref()?;
            Some((fate.task, location, end))
        });
        let reading = stream::iter(known).for_each_concurrent(
            CONCURRENT_READS,
            |(task, location, end)| async move {
                for process in 0..PROCESSES {
                    let again = self.client.read_again(process, location, task).await;
                    assert_eq!(&again, end, "the end of {} has changed", task.path());
                }
            },
        );
        let read = timeout(SETTLE_TIMEOUT, reading).await;
        read.expect("all jobs are found again");
    }

    /// Kills both processes, and checks the file and the files of large bodies.
    pub(super) async fn audit(&mut self, report: &Report) -> String {
        self.servers.iter_mut().for_each(kill);
        let log = fs::read_to_string(server::log(self.directory.path()));
        let log = log.expect("the log exists");
        let failures = log.lines();
        let failures: Vec<&str> = failures.filter(|line| is_failure(line)).collect();
        assert!(failures.is_empty(), "a process failed: {failures:#?}");
        let database = server::database(self.directory.path());
        audit::check(&database, report).await
    }
}

impl Drop for System {
    /// Prints the faults and the end of the log if the test fails.
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(server::log(self.directory.path()));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(LOG_LINES);
            println!("{}\n{}", self.diary.text(), lines[last..].join("\n"));
        }
    }
}

/// Returns `true` if a line of the log reports an error that no kill explains.
fn is_failure(line: &str) -> bool {
    ["ERROR", "panicked"].iter().any(|word| line.contains(word))
}
