//! Proof: jobs go through two replicas and three workers while, at random, workers are killed, the leader
//! of a stream is killed, and a replica is cut off.
//!
//! `ACCEPTED_CHAOS_JOBS` sets how many jobs (1,000), `ACCEPTED_CHAOS_SEED` replays the kills of a run:
//!
//! `ACCEPTED_CHAOS_JOBS=10000 cargo test --all-features --test nats chaos -- --nocapture`

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_nats::{ConnectOptions, jetstream};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tempfile::TempDir;
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_accepted::{
    Jobs, RequestBody,
    store::nats::{NatsOptions, NatsStore},
};

use crate::{
    server::Servers,
    site::layered,
    support::{Answer, Body, Failed, get, request, send, with},
    wire::Wire,
};

/// Where a child process finds what it is to do.
const WORKER: &str = "ACCEPTED_CHAOS_WORKER";

const WORKERS: usize = 3;

/// How much each runs at a time.
const PLACES: usize = 16;

/// The streams that everything depends on.
const STREAMS: [&str; 2] = ["accepted_queue", "KV_accepted_jobs"];

/// How many requests are sent at a time.
const CLIENTS: usize = 24;

/// How long all of it may take after the last request was sent. Nothing waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(120);

fn options() -> NatsOptions {
    NatsOptions::new()
        .replicas(3)
        .lease(Duration::from_secs(3))
        .ack_timeout(Duration::from_secs(2))
        .retain(Duration::from_secs(3600))
        // As many as it takes: what is to be shown is that no request is dropped.
        .attempts(1_000)
        .inline(INLINE)
}

/// Up to which size a body is kept with its record here.
const INLINE: usize = 4 << 10;

/// A request of the run: what it is follows from its number.
#[derive(Debug, Clone, Copy)]
struct Task {
    number: usize,
}

impl Task {
    /// Whether it may be done again, and why.
    fn kind(self) -> &'static str {
        match self.number % 4 {
            0 => "again", // its method is idempotent
            1 => "keyed", // it has a key, and is sent twice
            _ => "once",
        }
    }

    fn path(self) -> String {
        format!("/{}/{}", self.kind(), self.number)
    }

    fn of(path: &str) -> Self {
        let number = path.rsplit('/').next().and_then(|text| text.parse().ok());
        let number = number.expect("a path of this test");
        Self { number }
    }

    /// Its body, and that of its result: small with most, in a part of its own with one in ten, in some
    /// parts with one in a hundred.
    fn body(self) -> Vec<u8> {
        let bytes = match self.number % 100 {
            7 => 600_000,
            number if number % 10 == 3 => 5 * INLINE,
            _ => 20,
        };
        let body = (0..bytes).map(|at| (self.number * 31 + at * 7) as u8);
        body.collect()
    }

    fn request(self) -> Request<Body> {
        let method = match self.kind() {
            "again" => "PUT",
            _ => "POST",
        };
        let mut request = request(method, &self.path());
        *request.body_mut() = Body::from(self.body());
        match self.kind() {
            "keyed" => with(request, &[("idempotency-key", &self.path())]),
            _ => request,
        }
    }
}

/// Not a test: the worker that the test below starts as processes of their own, to kill them.
#[tokio::test]
#[ignore = "a part of the test below"]
async fn a_worker_process() {
    let Ok(told) = env::var(WORKER) else {
        return;
    };
    let (url, journal) = told.split_once(' ').expect("a URL and a file");
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let client = connect(url).await;
    let store = loop {
        // The cluster may be without a leader when this is started.
        match NatsStore::connect(client.clone(), options()).await {
            Ok(store) => break store,
            Err(error) => println!("{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    let jobs = Jobs::builder().build_with(store);
    let journal = fs::OpenOptions::new().append(true).open(journal);
    let journal = Arc::new(Mutex::new(journal.expect("the journal")));
    let service = service_fn(move |request: Request<RequestBody<Body>>| {
        // One call of the system: it is there whole, whatever becomes of this process.
        let line = format!("{} {}\n", process::id(), request.uri().path());
        journal.lock().write_all(line.as_bytes()).expect("a line");
        async {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Failed)?.to_bytes();
            // It ends as a failure then, which none may.
            if body != Task::of(head.uri.path()).body() {
                return Err(Failed);
            }
            let work = Duration::from_millis(rand::random_range(0..300));
            sleep(work).await;
            Ok::<_, Failed>(Response::new(Body::from(body)))
        }
    });
    let worker = jobs.worker::<_, Body>(service);
    worker.concurrency(PLACES).run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_ends_and_none_is_lost_or_done_twice_whatever_is_killed() {
    let jobs = number("ACCEPTED_CHAOS_JOBS").unwrap_or(1_000);
    let seed = number("ACCEPTED_CHAOS_SEED").unwrap_or_else(rand::random);
    println!("replay with ACCEPTED_CHAOS_SEED={seed}");
    let Some(servers) = Servers::start(3).await else {
        return;
    };
    let mut site = Site::start(servers, seed).await;
    let run = site.run(jobs as usize).await;
    println!("{}", site.losses());
    run.check(&site.journal());
    println!("{}", run.summary(&site));
}

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

async fn connect(url: &str) -> async_nats::Client {
    let urls: Vec<String> = url.split(',').map(str::to_owned).collect();
    ConnectOptions::new()
        .retry_on_initial_connect()
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::from_millis(100))
        .connect(urls)
        .await
        .expect("it is retried")
}

type Replica = BoxCloneSyncService<Request<Body>, Response<Body>, Failed>;

struct Site {
    servers: Servers,
    replicas: Vec<Replica>,
    wires: Vec<Wire>,
    workers: Vec<Worker>,
    seed: u64,
    folder: TempDir,
    diary: Diary,
}

/// What has become of a request.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// It was answered 503: nothing was promised.
    Refused,
    /// It ended so.
    Ended(String),
}

struct Run {
    /// By the path of the request.
    fates: HashMap<String, Fate>,
    /// Those that a monitor once said are not there, after they had been accepted.
    not_found: Vec<String>,
    /// The workers that were, by their process's number.
    killed: HashSet<u32>,
    took: Duration,
}

impl Site {
    async fn start(servers: Servers, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("journal"), "").expect("a file");
        let (mut replicas, mut wires) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let wire = Wire::start(&servers.addresses()).await;
            let client = connect(&wire.url()).await;
            let store = NatsStore::connect(client, options())
                .await
                .expect("streams");
            let jobs = Jobs::builder().build_with(store);
            let never = service_fn(async |_: Request<RequestBody<Body>>| {
                Ok::<_, Failed>(Response::new(Body::from("not by a worker")))
            });
            let service = layered(&jobs, never);
            let service = service.map_response(|response: Response<_>| response.map(Body::new));
            replicas.push(BoxCloneSyncService::new(service));
            wires.push(wire);
        }
        let journal = folder.path().join("journal");
        let workers = (0..WORKERS).map(|_| Worker::start(&servers.url(), &journal));
        Self {
            workers: workers.collect(),
            servers,
            replicas,
            wires,
            seed,
            folder,
            diary: Diary {
                events: Arc::default(),
                started: Instant::now(),
            },
        }
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.folder.path().join("journal")).expect("lines")
    }

    /// Of how many jobs the workers have said that they are lost, by why.
    fn losses(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("workers.log")).expect("lines");
        let mut losses = BTreeMap::<&str, usize>::new();
        for line in log
            .lines()
            .filter(|line| line.contains("ended a job as lost"))
        {
            let (_, why) = line.split_once("reason=").unwrap_or_default();
            *losses.entry(why).or_default() += 1;
        }
        let without_body = "failed to find a request's body";
        let without_body = log.lines().filter(|line| line.contains(without_body));
        let without_body = without_body.count();
        format!("lost, as the workers say: {losses:?}; bodies not found: {without_body}")
    }

    /// Sends requests and sees every accepted one to its end, while things are killed.
    async fn run(&mut self, jobs: usize) -> Run {
        let fates = Arc::new(Mutex::new(HashMap::new()));
        let unfinished = Arc::new(Mutex::new(HashMap::new()));
        let not_found = Arc::new(Mutex::new(Vec::new()));
        let (sent, all_sent) = watch::channel(false);
        let replicas = self.replicas.clone();
        let mut clients = JoinSet::new();
        let mut followers = JoinSet::new();
        for client in 0..CLIENTS {
            let (replicas, fates) = (replicas.clone(), fates.clone());
            let (unfinished, not_found) = (unfinished.clone(), not_found.clone());
            let mine = (client..jobs).step_by(CLIENTS);
            clients.spawn(async move {
                let mut accepted = Vec::new();
                for number in mine {
                    let task = Task { number };
                    match submit(&replicas, task).await {
                        Some(location) => {
                            unfinished.lock().insert(task.path(), location.clone());
                            let following =
                                follow(replicas.clone(), location, task, not_found.clone());
                            accepted.push(tokio::spawn(following));
                        }
                        None => {
                            fates.lock().insert(task.path(), Fate::Refused);
                            sleep(Duration::from_millis(100)).await;
                        }
                    }
                    let pause = rand::random_range(0..400);
                    sleep(Duration::from_millis(pause)).await;
                }
                accepted
            });
        }
        let sending = async {
            let mut accepted = Vec::new();
            while let Some(some) = clients.join_next().await {
                accepted.extend(some.expect("no panic"));
            }
            sent.send_replace(true);
            accepted
        };
        let mut random = StdRng::seed_from_u64(self.seed);
        let killing = kill_workers(
            &mut self.workers,
            StdRng::seed_from_u64(random.random()),
            all_sent.clone(),
            &self.diary,
        );
        let breaking = break_connections(
            &mut self.servers,
            &self.wires,
            random,
            all_sent,
            &self.diary,
        );
        let (accepted, (), ()) = tokio::join!(sending, killing, breaking);
        for follower in accepted {
            followers.spawn(follower);
        }
        let ending = async {
            while let Some(ended) = followers.join_next().await {
                let (path, end) = ended.expect("joined").expect("no panic");
                unfinished.lock().remove(&path);
                fates.lock().insert(path, Fate::Ended(end));
            }
        };
        let ended = timeout(PATIENCE, ending).await;
        if ended.is_err() {
            self.explain(&unfinished).await;
            panic!("{} jobs have not ended", followers.len());
        }
        self.emptied().await;
        let fates = std::mem::take(&mut *fates.lock());
        assert_eq!(fates.len(), jobs, "a request without an answer");
        let not_found = std::mem::take(&mut *not_found.lock());
        Run {
            fates,
            not_found,
            killed: self
                .workers
                .iter()
                .flat_map(|worker| worker.killed.clone())
                .collect(),
            took: self.diary.started.elapsed(),
        }
    }

    /// Waits until nothing that is not done with is left in the queue, also of what was refused and may have
    /// been put there.
    ///
    /// With 2.9.10 one was seen to stay there when every job had ended: what its job has come to is all that
    /// counts, until it is taken out some time later.
    async fn emptied(&self) {
        let looking = async {
            // A leader may just have gone.
            while self.left().await != Some(0) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        let emptied = timeout(PATIENCE, looking).await;
        emptied.expect("a request is left in the queue");
    }

    /// How many requests of unfinished jobs are in the queue, if it tells.
    async fn left(&self) -> Option<usize> {
        let jetstream = jetstream::new(self.servers.client().await);
        let queue = jetstream.get_stream(STREAMS[0]).await.ok()?;
        let state = queue.cached_info().state.clone();
        let (mut left, mut seen) = (0, 0);
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
                // Taken back.
                status => status == StatusCode::NOT_FOUND,
            };
            left += usize::from(!is_done);
        }
        Some(left)
    }

    /// Prints what there is to find out with.
    async fn explain(&self, unfinished: &Mutex<HashMap<String, String>>) {
        let unfinished = unfinished.lock().clone();
        for (path, location) in unfinished {
            let answer = send(&self.replicas[0], get(&location)).await;
            println!("{path}: {} {}", answer.status, answer.text());
        }
        let jetstream = jetstream::new(self.servers.client().await);
        let queue = jetstream.get_stream(STREAMS[0]).await.expect("it is there");
        let state = queue.get_info().await.expect("it answers").state;
        println!("{state:?}");
        let consumer = queue.consumer_info("accepted_workers").await;
        println!("{consumer:?}");
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = queue.get_raw_message(sequence).await {
                println!("{sequence}: {}", message.subject);
            }
        }
        println!("{}", self.diary.events.lock().join("\n"));
    }
}

/// What was done to the site, and when.
#[derive(Clone)]
struct Diary {
    events: Arc<Mutex<Vec<String>>>,
    started: Instant,
}

impl Diary {
    fn tell(&self, what: String) {
        let at = self.started.elapsed().as_secs_f64();
        self.events.lock().push(format!("{at:6.2} s  {what}"));
    }
}

/// Kills workers until all requests are sent, and two at least.
async fn kill_workers(
    workers: &mut [Worker],
    mut random: StdRng,
    mut all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    for number in 0.. {
        let pause = Duration::from_millis(random.random_range(200..1_500));
        select! {
            () = sleep(pause) => {}
            _ = all_sent.wait_for(|sent| *sent), if number >= 2 => return,
        }
        let worker = random.random_range(0..workers.len());
        diary.tell(format!("worker {worker} is killed"));
        workers[worker].kill();
        let pause = Duration::from_millis(random.random_range(0..1_000));
        sleep(pause).await;
        workers[worker].restart();
    }
}

/// Cuts replicas off and kills leaders, one at a time, until all requests are sent, and each once at least.
async fn break_connections(
    servers: &mut Servers,
    wires: &[Wire],
    mut random: StdRng,
    mut all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    for number in 0.. {
        let pause = Duration::from_millis(random.random_range(200..1_500));
        select! {
            () = sleep(pause) => {}
            _ = all_sent.wait_for(|sent| *sent), if number >= 2 => return,
        }
        let cuts = match number {
            0 => true,
            1 => false,
            _ => random.random(),
        };
        if cuts {
            let replica = random.random_range(0..wires.len());
            diary.tell(format!("replica {replica} is cut off for 5 s"));
            wires[replica].cut(true);
            sleep(Duration::from_secs(5)).await;
            wires[replica].cut(false);
        } else {
            let stream = *STREAMS.choose(&mut random).expect("two");
            let away = Duration::from_millis(random.random_range(1_000..4_000));
            kill_leader(servers, stream, away, diary).await;
        }
    }
}

async fn kill_leader(servers: &mut Servers, stream: &str, away: Duration, diary: &Diary) {
    servers.whole(&STREAMS).await;
    let jetstream = jetstream::new(servers.client().await);
    let info = jetstream.get_stream(stream).await.expect("it is whole");
    let cluster = info.cached_info().cluster.clone().expect("three of them");
    let leader = cluster.leader.expect("it is whole");
    diary.tell(format!("{leader} is killed, the leader of {stream}"));
    servers.kill_node(Servers::node(&leader));
    sleep(away).await;
    servers.start_node(Servers::node(&leader));
    servers.whole(&STREAMS).await;
    diary.tell(format!("{leader} is back"));
}

/// Sends a request, one with a key to both replicas at a time; where it is accepted.
async fn submit(replicas: &[Replica], task: Task) -> Option<String> {
    let replica = |turn: usize| &replicas[(task.number / 4 + turn) % 2];
    let mut answers = vec![send(replica(0), task.request())];
    if task.kind() == "keyed" {
        answers.push(send(replica(1), task.request()));
    }
    let mut locations = Vec::new();
    for answer in join_all(answers).await {
        match answer.status {
            StatusCode::ACCEPTED => locations.push(answer.location().to_owned()),
            StatusCode::SERVICE_UNAVAILABLE => {}
            _ => panic!("{}: {answer:?}", task.path()),
        }
    }
    locations.dedup();
    assert!(locations.len() <= 1, "{} is two jobs", task.path());
    locations.pop()
}

/// Looks at a job until it has ended, at one replica or the other, and then at its result.
async fn follow(
    replicas: Vec<Replica>,
    location: String,
    task: Task,
    not_found: Arc<Mutex<Vec<String>>>,
) -> (String, String) {
    let path = task.path();
    let mut address = location.clone();
    loop {
        let replica = rand::random_range(0..replicas.len());
        let answer: Answer = send(&replicas[replica], get(&address)).await;
        match answer.status {
            StatusCode::OK if address != location => {
                assert!(answer.body == task.body(), "not the result of {path}");
                return (path, "succeeded".to_owned());
            }
            StatusCode::OK => {
                let document = answer.json();
                match document["status"].as_str() {
                    Some("queued" | "running") => {}
                    Some("succeeded") => address = format!("{location}/result"),
                    _ => {
                        let end = document["error"]["code"].as_str();
                        return (path, end.unwrap_or("none").to_owned());
                    }
                }
            }
            StatusCode::SERVICE_UNAVAILABLE => {}
            // It has to be found again all the same, and to end.
            StatusCode::NOT_FOUND => not_found.lock().push(path.clone()),
            _ => panic!("{path} was accepted, and {address} is {answer:?}"),
        }
        let pause = rand::random_range(50..500);
        sleep(Duration::from_millis(pause)).await;
    }
}

impl Run {
    fn check(&self, journal: &str) {
        let not_found = &self.not_found;
        assert!(
            not_found.is_empty(),
            "accepted, and said not to be there: {not_found:?}"
        );
        // Who has begun what.
        let mut done: HashMap<&str, Vec<u32>> = HashMap::new();
        for line in journal.lines() {
            let (worker, path) = line.split_once(' ').expect("as it was written");
            let worker = worker.parse().expect("a number");
            done.entry(path).or_default().push(worker);
        }
        for (path, workers) in &done {
            let is_once = path.starts_with("/once/");
            assert!(
                !is_once || workers.len() == 1,
                "{path} was done {workers:?}"
            );
        }
        let (mut accepted, mut lost) = (0, 0);
        for (path, fate) in &self.fates {
            let workers = done.get(path.as_str()).map_or(&[][..], Vec::as_slice);
            let Fate::Ended(end) = fate else {
                continue;
            };
            accepted += 1;
            match end.as_str() {
                "succeeded" => assert!(!workers.is_empty(), "{path} was not done"),
                "lost" => {
                    lost += 1;
                    assert!(
                        path.starts_with("/once/"),
                        "{path} could have been done again"
                    );
                    // Or it was claimed, and not begun.
                    let is_dead = workers.iter().all(|worker| self.killed.contains(worker));
                    assert!(is_dead, "{path} is lost, and {workers:?} was not killed");
                }
                _ => panic!("{path} ended as {end}"),
            }
        }
        assert!(
            accepted * 2 >= self.fates.len(),
            "only {accepted} were accepted"
        );
        let most = self.killed.len() * PLACES;
        assert!(lost <= most, "{lost} lost, of at most {most}");
    }

    fn summary(&self, site: &Site) -> String {
        let count = |wanted: &dyn Fn(&Fate) -> bool| {
            self.fates.values().filter(|fate| wanted(fate)).count()
        };
        let refused = count(&|fate| *fate == Fate::Refused);
        let lost = count(&|fate| *fate == Fate::Ended("lost".to_owned()));
        let calls = site.journal().lines().count();
        format!(
            "{}\n{} requests in {:.1} s: {refused} refused, {} accepted, of these {lost} lost; {calls} \
             calls; {} workers were killed",
            site.diary.events.lock().join("\n"),
            self.fates.len(),
            self.took.as_secs_f64(),
            self.fates.len() - refused,
            self.killed.len(),
        )
    }
}

/// A worker in a process of its own.
struct Worker {
    command: Command,
    process: Child,
    killed: Vec<u32>,
}

impl Worker {
    fn start(url: &str, journal: &Path) -> Self {
        let log: PathBuf = journal.with_file_name("workers.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log);
        let mut command = Command::new(env::current_exe().expect("this test"));
        command
            .args([
                "--exact",
                "chaos::a_worker_process",
                "--ignored",
                "--nocapture",
            ])
            .env(WORKER, format!("{url} {}", journal.display()))
            .stdout(Stdio::null())
            .stderr(log.expect("a file"));
        let process = command.spawn().expect("it runs");
        Self {
            command,
            process,
            killed: Vec::new(),
        }
    }

    fn restart(&mut self) {
        self.process = self.command.spawn().expect("it runs");
    }

    fn kill(&mut self) {
        self.killed.push(self.process.id());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
