//! The rate of accepts and of status reads with the store in JetStream.
//!
//! `cargo bench --features nats --bench jetstream` starts nats-servers with files in a temporary
//! folder and prints the table in `benches/README.md`. Arguments after `--` choose rows, such as
//! `'R1 default'`. Servers, client and worker share this machine.

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

/// The time over which a row is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// The time before that, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    println!(
        "| operation | replicas | sync | concurrent requests | per second | p50 ms | p99 ms \
         | jobs run per second |"
    );
    println!("|---|---|---|---|---|---|---|---|");
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
            eprintln!("{name}: skipped, `sync_interval` needs nats-server 2.10 or later");
            continue;
        }
        let servers = Servers::start_with(replicas, "", settings).await;
        let servers = servers.expect("nats-server");
        for concurrency in [1, 32, 256] {
            let row = accept(&servers, replicas, concurrency).await;
            println!("| accept | {replicas} | {sync} | {row} |");
        }
        let row = read(&servers, replicas).await;
        reads.push(format!(
            "| status read, ended job | {replicas} | {sync} | {row} | |"
        ));
    }
    println!("{}", reads.join("\n"));
}

fn is_older_than_2_10() -> bool {
    let version = Command::new(program()).arg("--version").output();
    let version = String::from_utf8(version.expect("nats-server").stdout).expect("a version");
    let version = version.rsplit('v').next().unwrap_or_default().trim();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (2, 10)
}

/// Creates a registry with its own connection. Each row has its own jobs.
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

type JobRequest = Request<RequestBody<Body>>;

fn service(
    run: Arc<AtomicUsize>,
) -> impl Service<JobRequest, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(move |_: JobRequest| {
        run.fetch_add(1, Ordering::Relaxed);
        async { Ok(Response::new(Body::from("done"))) }
    })
}

async fn accept(servers: &Servers, replicas: usize, concurrency: usize) -> String {
    let prefix = format!("accept{concurrency}");
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
        concurrency,
        WARM_UP,
        || site.clone().oneshot(request()),
        StatusCode::ACCEPTED,
    )
    .await;
    let before = run.load(Ordering::Relaxed);
    let times = measure(
        concurrency,
        MEASURED,
        || site.clone().oneshot(request()),
        StatusCode::ACCEPTED,
    )
    .await;
    let jobs_run = run.load(Ordering::Relaxed) - before;
    // Drains the queue before the next row.
    let jetstream = async_nats::jetstream::new(servers.client().await);
    let queue = jetstream.get_stream(format!("{prefix}_queue")).await;
    let queue = queue.expect("a stream");
    while queue.get_info().await.expect("an answer").state.messages > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    worker.drain(Duration::from_secs(10)).await;
    working.await.expect("no panic");
    format!(
        "{concurrency} | {} | {:.0}",
        times.summary(),
        jobs_run as f64 / MEASURED.as_secs_f64()
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
    get("wait=10").await.expect("an answer");
    let concurrency = 32;
    measure(concurrency, WARM_UP, || get("none"), StatusCode::OK).await;
    let times = measure(concurrency, MEASURED, || get("none"), StatusCode::OK).await;
    jobs.drain(Duration::from_secs(10)).await;
    working.await.expect("no panic");
    format!("{concurrency} | {}", times.summary())
}

/// Sends requests until `limit` has passed, this many at a time.
async fn measure<F, R, E>(
    concurrency: usize,
    limit: Duration,
    send: impl Fn() -> F + Clone,
    expected: StatusCode,
) -> Times
where
    F: Future<Output = Result<Response<R>, E>> + Send,
    E: std::fmt::Debug,
{
    let start = Instant::now();
    let senders = (0..concurrency).map(|_| {
        let send = send.clone();
        async move {
            let mut times = Vec::new();
            while start.elapsed() < limit {
                let sent = Instant::now();
                let answer = send().await.expect("an answer");
                assert_eq!(answer.status(), expected);
                times.push(sent.elapsed());
            }
            times
        }
    });
    let times = futures_util::future::join_all(senders).await.concat();
    Times::new(times, start.elapsed())
}

struct Times {
    sorted: Vec<Duration>,
    elapsed: Duration,
}

impl Times {
    fn new(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        times.sort_unstable();
        Self {
            sorted: times,
            elapsed,
        }
    }

    /// Returns a quantile in milliseconds.
    fn quantile(&self, share: f64) -> f64 {
        let index = (self.sorted.len() as f64 * share) as usize;
        let at = self.sorted.get(index).or(self.sorted.last());
        at.copied().unwrap_or_default().as_secs_f64() * 1e3
    }

    fn summary(&self) -> String {
        let rate = self.sorted.len() as f64 / self.elapsed.as_secs_f64();
        format!(
            "{rate:.0} | {:.2} | {:.2}",
            self.quantile(0.5),
            self.quantile(0.99)
        )
    }
}
