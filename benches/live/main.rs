//! The latency of an output that is read while it is produced.
//!
//! `cargo bench --bench live` prints the tables in `benches/README.md`.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinSet,
    time::{interval, sleep},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_accepted::{Jobs, MonitorBody, RequestBody, When};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
type Chunks = mpsc::UnboundedSender<Bytes>;

/// The number of rounds, which alternate between the sides that are compared.
const ROUNDS: usize = 10;

/// The number of responses whose first byte is timed in a round.
const RESPONSES: usize = 2_000;

/// The number of chunks that are timed in a round.
const CHUNKS: usize = 2_000;

/// The number of readers that never read.
const STALLED_READERS: usize = 10;

/// The load: jobs that each produce a chunk every 20 ms, with a reader for each.
const LOAD_JOBS: usize = 200;
const LOAD_CHUNKS: usize = 250;
const LOAD_INTERVAL: Duration = Duration::from_millis(20);

fn main() {
    let runtime = runtime();
    println!("## First byte and chunks, in microseconds\n");
    println!("| | p50 | p99 |\n|---|---|---|");
    for (name, whens) in [
        ("first byte", [When::Never, When::Streamed]),
        ("chunk", [When::Never, When::Streamed]),
    ] {
        let mut times = [histogram(), histogram()];
        for _ in 0..ROUNDS {
            for (when, times) in whens.iter().zip(&mut times) {
                match name {
                    "chunk" => runtime.block_on(time_chunks(*when, 0, times)),
                    _ => runtime.block_on(time_first_bytes(*when, times)),
                }
            }
        }
        for (when, times) in whens.iter().zip(&times) {
            print_row(&format!("{name}, `{when:?}`"), times);
        }
    }
    println!("\n## Stalled readers: median of a round's chunks, in microseconds\n");
    println!("| | median of rounds | range |\n|---|---|---|");
    let mut medians = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (stalled, medians) in [0, STALLED_READERS].into_iter().zip(&mut medians) {
            let mut times = histogram();
            runtime.block_on(time_chunks(When::Streamed, stalled, &mut times));
            medians.push(micros(times.value_at_quantile(0.5)));
        }
    }
    for (stalled, medians) in [0, STALLED_READERS].into_iter().zip(&mut medians) {
        medians.sort_by(f64::total_cmp);
        let (first, last) = (medians[0], medians[ROUNDS - 1]);
        println!(
            "| {stalled} stalled | {:.1} | {first:.1} to {last:.1} |",
            medians[ROUNDS / 2]
        );
    }
    println!("\n## Under load, in microseconds\n");
    println!("| | p50 | p99 |\n|---|---|---|");
    print_row(
        &format!("chunk to reader, {LOAD_JOBS} jobs at 50 chunks/s"),
        &runtime.block_on(time_load()),
    );
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

fn print_row(name: &str, times: &Histogram<u64>) {
    let [median, tail] = [0.5, 0.99].map(|quantile| micros(times.value_at_quantile(quantile)));
    println!("| {name} | {median:.1} | {tail:.1} |");
}

/// A response with a body of chunks, and their sender.
fn produced() -> (Chunks, Response<Body>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let chunks = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|chunk: Option<Bytes>| chunk.map(|data| Ok::<_, BoxError>(Frame::data(data))))
    });
    (
        sender,
        Response::new(StreamBody::new(chunks).boxed_unsync()),
    )
}

/// Sends one request, and returns its response and the sender of its chunks.
async fn submit(jobs: &Jobs, when: When) -> (Chunks, Response<Body>) {
    let (sender, mut senders) = mpsc::unbounded_channel();
    let inner = service_fn(move |_: Request<RequestBody<Body>>| {
        let (chunks, response) = produced();
        let _ = sender.send(chunks);
        async { Ok::<_, Infallible>(response) }
    });
    let service = jobs.layer().when(when).layer(inner);
    let body = http_body_util::Empty::new();
    let request = Request::post("/").body(body.map_err(Into::into).boxed_unsync());
    let response = service.oneshot(request.expect("a request")).await;
    let response = response.expect("no error").map(BodyExt::boxed_unsync);
    (senders.recv().await.expect("a call"), response)
}

/// Times from the request to its first byte.
async fn time_first_bytes(when: When, times: &mut Histogram<u64>) {
    let jobs = Jobs::new();
    let service =
        jobs.layer()
            .when(when)
            .layer(service_fn(async |_: Request<RequestBody<Body>>| {
                let (chunks, response) = produced();
                // The body goes on after the first chunk.
                let _ = chunks.send(Bytes::from_static(b"first"));
                tokio::spawn(async move {
                    sleep(Duration::from_millis(1)).await;
                    drop(chunks);
                });
                Ok::<_, Infallible>(response)
            }));
    for _ in 0..RESPONSES {
        let body = http_body_util::Empty::new();
        let request = Request::post("/").body(body.map_err(Into::into).boxed_unsync());
        let request: Request<Body> = request.expect("a request");
        let started = Instant::now();
        let response = service.clone().oneshot(request).await;
        let mut body = response.expect("no error").into_body();
        body.frame().await.expect("a frame").expect("no error");
        let took = started.elapsed().as_nanos() as u64;
        times.record(took).expect("in range");
    }
}

/// Times from the production of a chunk until its reader has it, with readers that never read.
async fn time_chunks(when: When, stalled: usize, times: &mut Histogram<u64>) {
    let jobs = Jobs::new();
    let (chunks, response) = submit(&jobs, when).await;
    let stalled = open(&jobs, monitor(&response), stalled).await;
    let start = Instant::now();
    let reader = tokio::spawn(read(response, start));
    for _ in 0..CHUNKS {
        // A reader that is busy would be timed instead of its wake-up.
        spin(Duration::from_micros(50)).await;
        let _ = chunks.send(stamp(start));
    }
    drop(chunks);
    for took in reader.await.expect("no panic") {
        times.record(took).expect("in range");
    }
    drop(stalled);
}

async fn spin(duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// A chunk of 64 bytes that begins with the time.
fn stamp(start: Instant) -> Bytes {
    let nanos = start.elapsed().as_nanos() as u64;
    let mut chunk = vec![b'x'; 64];
    chunk[..8].copy_from_slice(&nanos.to_le_bytes());
    chunk.into()
}

/// Reads a body of stamped chunks, and returns the age of each.
async fn read<B>(response: Response<B>, start: Instant) -> Vec<u64>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut body = response.into_body();
    let mut ages = Vec::with_capacity(CHUNKS);
    while let Some(Ok(frame)) = body.frame().await {
        let now = start.elapsed().as_nanos() as u64;
        // Chunks that have come together are in one frame.
        let data = frame.into_data().unwrap_or_default();
        for chunk in data.chunks_exact(64) {
            let stamp = chunk[..8].try_into().expect("eight bytes");
            ages.push(now.saturating_sub(u64::from_le_bytes(stamp)));
        }
    }
    ages
}

/// Returns the path of the monitor from the `Link` of a response.
fn monitor<B>(response: &Response<B>) -> Option<String> {
    let link = response.headers().get("link")?.to_str().ok()?;
    link.split(['<', '>']).nth(1).map(str::to_owned)
}

/// Opens readers of a job's output.
async fn open(jobs: &Jobs, monitor: Option<String>, count: usize) -> Vec<Response<MonitorBody>> {
    let mut readers = Vec::new();
    for _ in 0..count {
        let path = format!("{}/stream", monitor.as_deref().expect("a link"));
        let body = http_body_util::Empty::<Bytes>::new();
        let request = Request::get(path).body(body).expect("a request");
        let response = jobs.monitor().oneshot(request).await;
        readers.push(response.expect("a stream"));
    }
    readers
}

/// Times chunks of many jobs at once, each read at the monitor.
async fn time_load() -> Histogram<u64> {
    let jobs = Jobs::new();
    let mut readers = JoinSet::new();
    for _ in 0..LOAD_JOBS {
        let (chunks, response) = submit(&jobs, When::Streamed).await;
        let mut opened = open(&jobs, monitor(&response), 1).await;
        let start = Instant::now();
        tokio::spawn(async move {
            let mut ticks = interval(LOAD_INTERVAL);
            for _ in 0..LOAD_CHUNKS {
                ticks.tick().await;
                let _ = chunks.send(stamp(start));
            }
        });
        tokio::spawn(read(response, start));
        readers.spawn(read(opened.remove(0), start));
    }
    let mut times = histogram();
    while let Some(ages) = readers.join_next().await {
        for age in ages.expect("no panic") {
            times.record(age).expect("in range");
        }
    }
    times
}
