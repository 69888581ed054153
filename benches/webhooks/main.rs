//! What receivers that never answer cost: the latency of 202s, and of webhooks to a live receiver.
//!
//! `cargo bench --features webhook --bench webhooks` prints the table in `benches/README.md`.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::Path, routing::post};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::mpsc,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_accepted::{
    Jobs, RequestBody, When,
    webhook::{Secret, Target, Webhooks},
};

type Body = Full<Bytes>;

/// The number of pairs of rounds, one quiet and one noisy.
const ROUNDS: usize = 5;

/// The number of receivers that never answer, each with an address of its own.
const SILENT_RECEIVERS: usize = 1_000;

/// The number of jobs that notify each of them before a noisy round.
const SILENT_JOBS: usize = 2;

/// The time between two jobs that notify the live receiver.
const LIVE_INTERVAL: Duration = Duration::from_millis(2);

/// The time limits of an attempt, and the number of jobs that notify the live receiver in a round.
/// At least one set of attempts ends during a round, and another begins.
const CASES: [(Duration, usize); 2] = [
    // The default.
    (Duration::from_secs(15), 8_000),
    (Duration::from_secs(1), 2_000),
];

/// The number of connections that wait for an answer before a noisy round is measured.
const MIN_WAITING: usize = 64;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(compare());
}

/// The latencies of a round in nanoseconds.
struct Round {
    accepts: Histogram<u64>,
    deliveries: Histogram<u64>,
}

impl Round {
    fn new() -> Self {
        Self {
            accepts: histogram(),
            deliveries: histogram(),
        }
    }

    fn accepts(&self) -> &Histogram<u64> {
        &self.accepts
    }

    fn deliveries(&self) -> &Histogram<u64> {
        &self.deliveries
    }
}

async fn compare() {
    let receivers = Receivers::start().await;
    println!("## {SILENT_RECEIVERS} receivers that never answer, in microseconds\n");
    println!("Median of {ROUNDS} rounds, and the range.\n");
    println!("| time limit | | quiet | noisy |\n|---|---|---|---|");
    for (timeout, jobs) in CASES {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (is_noisy, rounds) in [false, true].into_iter().zip(&mut rounds) {
                rounds.push(receivers.round(timeout, jobs, is_noisy).await);
            }
        }
        print_rows(timeout, &rounds);
    }
}

fn print_rows(timeout: Duration, rounds: &[Vec<Round>; 2]) {
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |rounds: &[Round], times: fn(&Round) -> &Histogram<u64>| {
            let values = rounds
                .iter()
                .map(|it| times(it).value_at_quantile(quantile));
            spread(values.collect())
        };
        for (what, times) in [
            ("accept", Round::accepts as fn(&Round) -> &Histogram<u64>),
            ("request to webhook", Round::deliveries),
        ] {
            let [quiet, noisy] = [0, 1].map(|side: usize| of(&rounds[side], times));
            println!("| {timeout:?} | {what}, {name} | {quiet} | {noisy} |");
        }
    }
}

fn spread(mut nanos: Vec<u64>) -> String {
    nanos.sort_unstable();
    let micros = |nanos: u64| nanos as f64 / 1_000.0;
    let (first, last) = (micros(nanos[0]), micros(nanos[nanos.len() - 1]));
    format!(
        "{:.0} ({first:.0} to {last:.0})",
        micros(nanos[nanos.len() / 2])
    )
}

/// A live receiver, and those that never answer.
struct Receivers {
    start: Instant,
    live_port: u16,
    silent_port: u16,
    /// The latencies of webhooks that the live receiver got.
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<u64>>,
    /// The connections that wait for an answer.
    waiting: Arc<AtomicUsize>,
    _servers: JoinSet<()>,
}

impl Receivers {
    async fn start() -> Self {
        let start = Instant::now();
        let mut servers = JoinSet::new();
        let (sender, received) = mpsc::unbounded_channel();
        // The path has the time of the request.
        let live = post(async move |Path(sent): Path<u64>| {
            let now = start.elapsed().as_nanos() as u64;
            let _ = sender.send(now.saturating_sub(sent));
            StatusCode::NO_CONTENT
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let live_port = listener.local_addr().expect("an address").port();
        let app = Router::new().route("/{sent}", live);
        servers.spawn(async move {
            let _ = axum::serve(listener, app).await;
        });

        // All addresses of 127.0.0.0/8 lead here.
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let silent_port = listener.local_addr().expect("an address").port();
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = waiting.clone();
        servers.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = count.clone();
                open.spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    // Until the sender gives up.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
                while open.try_join_next().is_some() {}
            }
        });
        Self {
            start,
            live_port,
            silent_port,
            received: tokio::sync::Mutex::new(received),
            waiting,
            _servers: servers,
        }
    }

    /// Returns the URL of a receiver that never answers.
    fn silent(&self, number: usize) -> String {
        let (high, low) = (number / 250, number % 250 + 1);
        format!("http://127.1.{high}.{low}:{}/hook", self.silent_port)
    }

    fn live(&self) -> String {
        let sent = self.start.elapsed().as_nanos();
        format!("http://127.0.0.1:{}/{sent}", self.live_port)
    }

    async fn round(&self, timeout: Duration, live_jobs: usize, is_noisy: bool) -> Round {
        let webhooks = Webhooks::new()
            .secret(Secret::generate())
            .insecure_for_development()
            .timeout(timeout)
            .retry_delays([timeout; 10])
            .max_rate_per_receiver(10_000)
            .targets(|head| {
                let url = head.headers.get("x-notify");
                let url = url.and_then(|url| url.to_str().ok());
                url.map(Target::new).into_iter().collect()
            });
        let jobs = Jobs::builder().webhooks(webhooks).build();
        let mut received = self.received.lock().await;
        let mut round = Round::new();
        // It has responded before.
        for _ in 0..100 {
            submit(&jobs, &self.live()).await;
            next(&mut received).await;
        }
        if is_noisy {
            for number in (0..SILENT_RECEIVERS)
                .cycle()
                .take(SILENT_RECEIVERS * SILENT_JOBS)
            {
                submit(&jobs, &self.silent(number)).await;
            }
            while self.waiting.load(Ordering::SeqCst) < MIN_WAITING {
                sleep(Duration::from_millis(1)).await;
            }
        }
        let mut ticks = interval(LIVE_INTERVAL);
        for _ in 0..live_jobs {
            ticks.tick().await;
            let took = submit(&jobs, &self.live()).await;
            round.accepts.record(took).expect("in range");
        }
        for _ in 0..live_jobs {
            let took = next(&mut received).await;
            round.deliveries.record(took).expect("in range");
        }
        drop(jobs);
        while self.waiting.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        round
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

async fn next(received: &mut mpsc::UnboundedReceiver<u64>) -> u64 {
    let next = timeout(PATIENCE, received.recv()).await;
    next.expect("in time").expect("the receiver runs")
}

/// Submits a job that notifies `url`. Returns the nanoseconds until its 202.
async fn submit(jobs: &Jobs, url: &str) -> u64 {
    let service = service_fn(async |_: Request<RequestBody<Body>>| {
        Ok::<_, Infallible>(Response::new(Body::from("the report")))
    });
    let service = jobs.layer().when(When::Always).layer(service);
    let request = Request::post("/reports").header("x-notify", url);
    let request = request.body(Body::default()).expect("a request");
    let began = Instant::now();
    let response = service.oneshot(request).await.expect("a response");
    let took = began.elapsed().as_nanos() as u64;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    took
}
