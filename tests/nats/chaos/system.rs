//! The system under test: three servers, two replicas, and three workers.

use std::{collections::BTreeMap, fs, time::Duration};

use async_nats::jetstream;
use http::{Request, Response, StatusCode};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_accepted::{Jobs, RequestBody, store::nats::NatsStore};

use super::{
    client::{Progress, Replica, send_all},
    connect,
    faults::{break_connections, kill_workers},
    options,
    report::{Fate, Report},
    shared::{Diary, TestProcess},
    worker::start_worker,
};
use crate::{
    server::Servers,
    site::{layered, registry},
    streams::{CONSUMER, QUEUE},
    support::{Body, Failed, get, send},
    wire::Wire,
};

const REPLICAS: usize = 2;

const WORKERS: usize = 3;

/// The time for all jobs to end after the last request, and for the queue to empty after that.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Log messages of workers, for a lost job and for a request without its body.
const LOST_LOG: &str = "ended a job as lost";
const MISSING_BODY_LOG: &str = "failed to find a request's body";

pub(super) struct System {
    servers: Servers,
    replicas: Vec<Replica>,
    wires: Vec<Wire>,
    workers: Vec<TestProcess>,
    seed: u64,
    folder: TempDir,
    diary: Diary,
}

impl System {
    pub(super) async fn start(servers: Servers, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = folder.path().join("journal");
        fs::write(&journal, "").expect("a file");
        let (mut replicas, mut wires) = (Vec::new(), Vec::new());
        for _ in 0..REPLICAS {
            let wire = Wire::start(&servers.addresses()).await;
            replicas.push(replica(&wire).await);
            wires.push(wire);
        }
        let workers = (0..WORKERS).map(|_| start_worker(&servers.url(), &journal));
        Self {
            workers: workers.collect(),
            servers,
            replicas,
            wires,
            seed,
            folder,
            diary: Diary::new(),
        }
    }

    /// Returns one line for each call: the worker's process id, and the path of the request.
    pub(super) fn journal(&self) -> String {
        fs::read_to_string(self.folder.path().join("journal")).expect("the journal exists")
    }

    /// Counts the lost jobs that workers logged, by reason.
    pub(super) fn losses(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("workers.log"));
        let log = log.expect("the log exists");
        let mut losses = BTreeMap::<&str, usize>::new();
        for line in log.lines().filter(|line| line.contains(LOST_LOG)) {
            let (_, why) = line.split_once("reason=").unwrap_or_default();
            *losses.entry(why).or_default() += 1;
        }
        let missing = log.lines().filter(|line| line.contains(MISSING_BODY_LOG));
        let missing = missing.count();
        format!("lost, as the workers log: {losses:?}; bodies not found: {missing}")
    }

    /// Sends requests while faults strike, and follows every accepted job to its end.
    pub(super) async fn run(&mut self, jobs: usize) -> Report {
        let progress = Progress::default();
        let (sent, all_sent) = watch::channel(false);
        let replicas = self.replicas.clone();
        let sending = async {
            let followers = send_all(&replicas, &progress, jobs).await;
            sent.send_replace(true);
            followers
        };
        let mut random = StdRng::seed_from_u64(self.seed);
        let worker_random = StdRng::seed_from_u64(random.random());
        let (workers, servers) = (&mut self.workers, &mut self.servers);
        let killing = kill_workers(workers, worker_random, all_sent.clone(), &self.diary);
        let breaking = break_connections(servers, &self.wires, random, all_sent, &self.diary);
        let (sent, (), ()) = tokio::join!(sending, killing, breaking);
        let mut followers = JoinSet::new();
        for follower in sent {
            followers.spawn(follower);
        }
        let ending = async {
            while let Some(ended) = followers.join_next().await {
                let (path, end) = ended.expect("joined").expect("no panic");
                progress.unfinished.lock().remove(&path);
                progress.fates.lock().insert(path, Fate::Ended(end));
            }
        };
        if timeout(SETTLE_TIMEOUT, ending).await.is_err() {
            self.explain(&progress).await;
            panic!("{} jobs have not ended", followers.len());
        }
        self.queue_emptied().await;
        let fates = std::mem::take(&mut *progress.fates.lock());
        assert_eq!(fates.len(), jobs, "a request without an answer");
        let not_found = std::mem::take(&mut *progress.not_found.lock());
        let killed = self.workers.iter().flat_map(|worker| worker.killed.clone());
        Report {
            fates,
            not_found,
            killed: killed.collect(),
            duration: self.diary.elapsed(),
            faults: self.diary.text(),
        }
    }

    /// Waits until the queue has no request of an unfinished job.
    ///
    /// A refused request may be in the queue, too. The request of an ended job may stay for a while
    /// (seen with server 2.9.10), until the store removes it.
    async fn queue_emptied(&self) {
        let counting = async {
            // A stream without a leader does not answer.
            while self.unfinished_in_queue().await != Some(0) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        let emptied = timeout(SETTLE_TIMEOUT, counting).await;
        emptied.expect("a request is left in the queue");
    }

    /// Counts the requests of unfinished jobs in the queue. Returns `None` if the server fails.
    async fn unfinished_in_queue(&self) -> Option<usize> {
        let jetstream = jetstream::new(self.servers.client().await);
        let queue = jetstream.get_stream(QUEUE).await.ok()?;
        let state = queue.cached_info().state.clone();
        let (mut unfinished, mut seen) = (0, 0);
        for sequence in state.first_sequence..=state.last_sequence {
            if seen == state.messages {
                break;
            }
            let Ok(message) = queue.get_raw_message(sequence).await else {
                continue;
            };
            seen += 1;
            let (_, id) = message.subject.rsplit_once('.')?;
            let answer = send(&self.replicas[0], get(&format!("/jobs/{id}"))).await;
            let is_done = match answer.status {
                StatusCode::OK => answer.json()["finishedAt"].is_string(),
                // The request was withdrawn.
                status => status == StatusCode::NOT_FOUND,
            };
            unfinished += usize::from(!is_done);
        }
        Some(unfinished)
    }

    /// Prints the unfinished jobs, the queue and the faults, to find out why jobs do not end.
    async fn explain(&self, progress: &Progress) {
        let unfinished = progress.unfinished.lock().clone();
        for (path, location) in unfinished {
            let answer = send(&self.replicas[0], get(&location)).await;
            println!("{path}: {} {}", answer.status, answer.text());
        }
        let jetstream = jetstream::new(self.servers.client().await);
        let queue = jetstream.get_stream(QUEUE).await;
        let queue = queue.expect("the stream exists");
        let state = queue.get_info().await.expect("the server answers").state;
        println!("{state:?}");
        let consumer = queue.consumer_info(CONSUMER).await;
        println!("{consumer:?}");
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = queue.get_raw_message(sequence).await {
                println!("{sequence}: {}", message.subject);
            }
        }
        println!("{}", self.diary.text());
    }
}

/// Starts a process that accepts requests behind a wire, and runs none.
async fn replica(wire: &Wire) -> Replica {
    let client = connect(&wire.url()).await;
    let store = NatsStore::connect(client, options()).await;
    let jobs = registry(Jobs::builder(), store.expect("the store connects"));
    let never = service_fn(async |_: Request<RequestBody<Body>>| {
        Ok::<_, Failed>(Response::new(Body::from("not run by a worker")))
    });
    let service = layered(&jobs, never);
    let service = service.map_response(|response: Response<_>| response.map(Body::new));
    BoxCloneSyncService::new(service)
}
