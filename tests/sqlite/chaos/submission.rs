//! Submits requests as HTTP clients do: they repeat idempotent and keyed ones.

use std::{ops::Range, time::Duration};

use http::StatusCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::{
    PROCESSES,
    client::{Client, JobEnd},
    task::{Task, TaskKind},
};
use crate::support::Answer;

/// The number of clients that send requests at a time.
const CLIENTS: usize = 24;

/// The pause of a client between two requests, in milliseconds.
const PAUSE_MS: Range<u64> = 0..400;

/// The time after which a key is repeated, in milliseconds.
const REPEAT_MS: Range<u64> = 0..2_500;

/// The delay before a failed request is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The fate of one request.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) task: Task,
    /// The monitor and the end of the job, or `None` if the client knows of no 202.
    pub(super) job: Option<(String, JobEnd)>,
    pub(super) counts: Counts,
}

/// Counts of answers and failures that a client has seen.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// The answers 503.
    pub(super) refused: usize,
    /// The connections that broke.
    pub(super) broken: usize,
    /// The repeats that joined the job of an earlier request.
    pub(super) joined: usize,
}

/// A client with a random sequence of its own.
struct Submitter {
    client: Client,
    random: StdRng,
    counts: Counts,
}

/// Sends this many requests. The returned tasks follow the accepted ones to their end.
pub(super) async fn send_all(client: &Client, jobs: usize, seed: u64) -> JoinSet<Fate> {
    let mut submitters = JoinSet::new();
    for number in 0..CLIENTS {
        let numbers = (number..jobs).step_by(CLIENTS);
        let client = client.clone();
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        submitters.spawn(async move {
            let mut fates = Vec::new();
            for number in numbers {
                let submitter = Submitter {
                    client: client.clone(),
                    random: StdRng::seed_from_u64(random.random()),
                    counts: Counts::default(),
                };
                // The next request does not wait for the end of this job.
                let (fate, is_submitted) = submitter.start(Task { number });
                fates.push(fate);
                // Closed without a value if the task panics, which its join shows.
                let _ = is_submitted.await;
                let pause = Duration::from_millis(random.random_range(PAUSE_MS));
                sleep(pause).await;
            }
            fates
        });
    }
    let mut all = JoinSet::new();
    for fate in submitters.join_all().await.into_iter().flatten() {
        all.spawn(async move { fate.await.expect("no panic") });
    }
    all
}

impl Submitter {
    /// Starts to submit a request and to follow its job. The receiver completes once the request is
    /// answered.
    fn start(mut self, task: Task) -> (JoinHandle<Fate>, oneshot::Receiver<()>) {
        let (submitted, is_submitted) = oneshot::channel();
        let fate = tokio::spawn(async move {
            let location = self.submit(task).await;
            let _ = submitted.send(());
            let job = match location {
                Some(location) => Some(self.follow(location, task).await),
                None => None,
            };
            Fate {
                task,
                job,
                counts: self.counts,
            }
        });
        (fate, is_submitted)
    }

    /// Sends a request, and returns the monitor of its job if it is accepted.
    async fn submit(&mut self, task: Task) -> Option<String> {
        let process = self.random.random_range(0..PROCESSES);
        match task.kind() {
            // A client must not repeat it: it may have been accepted.
            TaskKind::Once => {
                let answer = self.client.submit(process, task).await;
                self.accepted(task, answer)
            }
            TaskKind::Put | TaskKind::Repeated => Some(self.insist(process, task).await),
            TaskKind::Twice => {
                let mut other = Submitter {
                    client: self.client.clone(),
                    random: StdRng::seed_from_u64(self.random.random()),
                    counts: Counts::default(),
                };
                let (one, two) = tokio::join!(
                    self.insist(process, task),
                    other.insist((process + 1) % PROCESSES, task),
                );
                assert_eq!(one, two, "the key of {} has two jobs", task.path());
                self.counts.add(other.counts);
                Some(one)
            }
        }
    }

    /// Repeats a request until it is accepted, by any process after the first.
    async fn insist(&mut self, mut process: usize, task: Task) -> String {
        loop {
            let answer = self.client.submit(process, task).await;
            if let Some(location) = self.accepted(task, answer) {
                return location;
            }
            sleep(RETRY_DELAY).await;
            process = self.random.random_range(0..PROCESSES);
        }
    }

    /// Returns the monitor, if the request was accepted.
    fn accepted(&mut self, task: Task, answer: Option<Answer>) -> Option<String> {
        let Some(answer) = answer else {
            self.counts.broken += 1;
            return None;
        };
        match answer.status {
            StatusCode::ACCEPTED => {
                let has_joined = answer.header("idempotent-replayed") == Some("true");
                self.counts.joined += usize::from(has_joined);
                Some(answer.location().to_owned())
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                self.counts.refused += 1;
                None
            }
            _ => panic!("{}: {answer:?}", task.path()),
        }
    }

    /// Follows a job to its end. A key is repeated meanwhile, and once more after the end.
    async fn follow(&mut self, location: String, task: Task) -> (String, JobEnd) {
        if task.kind() == TaskKind::Repeated {
            let pause = Duration::from_millis(self.random.random_range(REPEAT_MS));
            sleep(pause).await;
            self.repeat(&location, task).await;
        }
        let end = self.client.follow(&location, task, &mut self.random).await;
        if task.is_keyed() {
            self.repeat(&location, task).await;
        }
        (location, end)
    }

    async fn repeat(&mut self, location: &str, task: Task) {
        let process = self.random.random_range(0..PROCESSES);
        let repeated = self.insist(process, task).await;
        assert_eq!(
            repeated,
            location,
            "the key of {} has two jobs",
            task.path()
        );
    }
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.broken += other.broken;
        self.joined += other.joined;
    }
}
