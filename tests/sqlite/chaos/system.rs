//! The system under test: two processes on one file.

use std::{collections::HashSet, fs, net::TcpListener, time::Duration};

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
        let fates = match timeout(SETTLE_TIMEOUT, fates.join_all()).await {
            Ok(fates) => fates,
            Err(_) => panic!("some jobs have not ended\n{}", self.explain()),
        };
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
        if timeout(SETTLE_TIMEOUT, reading).await.is_err() {
            panic!("some jobs are not found again\n{}", self.explain());
        }
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

    /// Returns the faults and the log, to find out why jobs do not end.
    fn explain(&self) -> String {
        let log = fs::read_to_string(server::log(self.directory.path()));
        let found = self.client.not_found.lock().len();
        format!(
            "{}\n{}\n{found} were 404",
            self.diary.text(),
            log.unwrap_or_default()
        )
    }
}

/// Returns `true` if a line of the log tells of an error that no kill explains.
fn is_failure(line: &str) -> bool {
    ["ERROR", "panicked"].iter().any(|word| line.contains(word))
}
