//! How many requests a second JetStream takes, and what it is to ask for a job in it.
//!
//! `cargo bench --all-features --bench jetstream` starts nats-servers of its own, with files in a temporary
//! folder, and ends with the table that is kept in `benches/README.md`; after `--`, words choose among
//! its rows. Everything is on this machine: the servers, who submits, and a worker that runs what was
//! submitted at the same time.

#[path = "../examples/cluster/servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod server;

use std::{
    env,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_accepted::{
    Jobs, RequestBody,
    store::nats::{NatsOptions, NatsStore},
};

use crate::server::{Servers, program};

/// How long each row is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// What a row begins with, and is not counted.
const WARM_UP: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    println!(
        "| replicas | sync | requests at a time | accepted/s | p50 ms | p99 ms | run/s meanwhile |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut reads = Vec::new();
    for (replicas, sync, settings) in [
        (1, "default", ""),
        (3, "default", ""),
        (1, "always", "sync_interval: always"),
        (3, "always", "sync_interval: always"),
    ] {
        let name = format!("R{replicas} {sync}");
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        if sync == "always" && is_older_than_2_10() {
            eprintln!(
                "{name}: left out, since only nats-server 2.10 and later can be told when to sync"
            );
            continue;
        }
        let servers = Servers::start_with(replicas, "", settings).await;
        let servers = servers.expect("nats-server");
        for at_a_time in [1, 32, 256] {
            let row = accept(&servers, replicas, at_a_time).await;
            println!("| {replicas} | {sync} | {row} |");
        }
        reads.push(format!(
            "| {replicas} | {sync} | {} |",
            read(&servers, replicas).await
        ));
    }
    println!(
        "\n| replicas | sync | reads at a time | reads/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|"
    );
    println!("{}", reads.join("\n"));
}

fn is_older_than_2_10() -> bool {
    let told = Command::new(program()).arg("--version").output();
    let told = String::from_utf8(told.expect("nats-server").stdout).expect("a version");
    let version = told.rsplit('v').next().unwrap_or_default().trim();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (2, 10)
}

/// A registry with a connection of its own. The jobs of one row are not those of another.
async fn registry(servers: &Servers, replicas: usize, row: &str) -> Jobs<NatsStore> {
    let options = NatsOptions::new().replicas(replicas).prefix(row);
    let store = NatsStore::connect(servers.client().await, options).await;
    Jobs::builder().store(store.expect("streams")).build()
}

fn request() -> Request<Body> {
    let request = Request::post("/reports").header("content-type", "application/json");
    let body = Body::from(r#"{"report":"monthly","of":"2026-11"}"#);
    request.body(body).expect("a request")
}

fn service(
    run: Arc<AtomicUsize>,
) -> impl Service<Request<RequestBody<Body>>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(move |_: Request<RequestBody<Body>>| {
        run.fetch_add(1, Ordering::Relaxed);
        async { Ok(Response::new(Body::from("done"))) }
    })
}

async fn accept(servers: &Servers, replicas: usize, at_a_time: usize) -> String {
    let prefix = format!("accept{at_a_time}");
    let web = registry(servers, replicas, &prefix).await;
    let worker = registry(servers, replicas, &prefix).await;
    let run = Arc::new(AtomicUsize::new(0));
    let working = worker
        .worker::<_, Body>(service(run.clone()))
        .concurrency(256)
        .run();
    let working = tokio::spawn(working);
    let site = web.layer().layer(service(Arc::default()));
    measure(
        at_a_time,
        WARM_UP,
        || site.clone().oneshot(request()),
        StatusCode::ACCEPTED,
    )
    .await;
    let before = run.load(Ordering::Relaxed);
    let times = measure(
        at_a_time,
        MEASURED,
        || site.clone().oneshot(request()),
        StatusCode::ACCEPTED,
    )
    .await;
    let run_meanwhile = run.load(Ordering::Relaxed) - before;
    // The next row is to begin with an empty queue.
    let jetstream = async_nats::jetstream::new(servers.client().await);
    let queue = jetstream.get_stream(format!("{prefix}_queue")).await;
    let queue = queue.expect("it is there");
    while queue.get_info().await.expect("an answer").state.messages > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    worker.drain(Duration::from_secs(10)).await;
    working.await.expect("no panic");
    format!(
        "{at_a_time} | {} | {:.0}",
        times.summary(),
        run_meanwhile as f64 / MEASURED.as_secs_f64()
    )
}

async fn read(servers: &Servers, replicas: usize) -> String {
    let jobs = registry(servers, replicas, "read").await;
    let working = tokio::spawn(jobs.worker::<_, Body>(service(Arc::default())).run());
    let site = jobs.layer().layer(service(Arc::default()));
    let accepted = site.clone().oneshot(request()).await.expect("an answer");
    let location = accepted.headers()["location"]
        .to_str()
        .expect("a path")
        .to_owned();
    let get = |wait| {
        let request = Request::get(&location).header("prefer", wait);
        site.clone()
            .oneshot(request.body(Body::empty()).expect("a request"))
    };
    get("wait=10").await.expect("its end");
    let at_a_time = 32;
    measure(at_a_time, WARM_UP, || get("none"), StatusCode::OK).await;
    let times = measure(at_a_time, MEASURED, || get("none"), StatusCode::OK).await;
    jobs.drain(Duration::from_secs(10)).await;
    working.await.expect("no panic");
    format!("{at_a_time} | {}", times.summary())
}

/// Sends requests for so long, so many at a time.
async fn measure<F, R, E>(
    at_a_time: usize,
    limit: Duration,
    send: impl Fn() -> F + Clone,
    expected: StatusCode,
) -> Times
where
    F: Future<Output = Result<Response<R>, E>> + Send,
    E: std::fmt::Debug,
{
    let began = Instant::now();
    let senders = (0..at_a_time).map(|_| {
        let send = send.clone();
        async move {
            let mut times = Vec::new();
            while began.elapsed() < limit {
                let sent = Instant::now();
                let answer = send().await.expect("an answer");
                assert_eq!(answer.status(), expected);
                times.push(sent.elapsed());
            }
            times
        }
    });
    let times = futures_util::future::join_all(senders).await.concat();
    Times::new(times, began.elapsed())
}

struct Times {
    sorted: Vec<Duration>,
    took: Duration,
}

impl Times {
    fn new(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        Self {
            sorted: times,
            took,
        }
    }

    fn quantile(&self, part: f64) -> f64 {
        let index = (self.sorted.len() as f64 * part) as usize;
        let at = self.sorted.get(index).or(self.sorted.last());
        at.copied().unwrap_or_default().as_secs_f64() * 1e3
    }

    fn summary(&self) -> String {
        let rate = self.sorted.len() as f64 / self.took.as_secs_f64();
        format!(
            "{rate:.0} | {:.2} | {:.2}",
            self.quantile(0.5),
            self.quantile(0.99)
        )
    }
}
