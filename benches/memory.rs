//! The memory of jobs, and the processor time of ten thousand while they run.
//!
//! `cargo bench --bench memory` runs every scenario in its own processes and prints the figures in
//! `benches/README.md`. `cargo bench --bench memory -- SCENARIO` runs one scenario once.

mod handwritten;
mod serving;
mod subjects;

use std::{
    convert::Infallible,
    env,
    fs::read_to_string,
    future::Future,
    io::{BufRead, BufReader, Read, stdin},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{net::TcpListener, runtime::Runtime, task::yield_now, time::sleep};
use tower::{BoxError, Layer, Service, ServiceExt, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_accepted::{JobHandle, Jobs, RequestBody};

use crate::{
    serving::serve,
    subjects::{BATCH, application, submission},
};

/// The number of runs of a scenario.
const ROUNDS: usize = 3;

/// The number of jobs before the measurement starts.
const WARM_UP: usize = 10_000;

const IN_PROCESS: usize = 1_000_000;
const OVER_SOCKETS: usize = 200_000;
const UNFINISHED: usize = 100_000;
const RUNNING: usize = 10_000;
const STREAMS: usize = 1_000;

/// The name, the measurement, and the units of its figures.
type Scenario = (&'static str, fn() -> Vec<f64>, &'static str);

const UNFINISHED_UNITS: &str = "bytes, of which its future";
const RUNNING_UNITS: &str = "kB in total, ms of processor time a second";

const SCENARIOS: [Scenario; 10] = [
    ("ended", ended_in_process, "bytes"),
    ("ended-handwritten", ended_by_hand_in_process, "bytes"),
    ("ended-sockets", ended_over_sockets, "bytes"),
    (
        "ended-sockets-handwritten",
        ended_by_hand_over_sockets,
        "bytes",
    ),
    ("queued-sockets", queued_over_sockets, "bytes"),
    ("unfinished", unfinished_in_process, UNFINISHED_UNITS),
    (
        "unfinished-sockets",
        unfinished_over_sockets,
        UNFINISHED_UNITS,
    ),
    (
        "unfinished-sockets-head-kept",
        unfinished_with_its_head,
        UNFINISHED_UNITS,
    ),
    ("running", || running(0), RUNNING_UNITS),
    ("running-watched", || running(STREAMS), RUNNING_UNITS),
];

fn main() {
    // Cargo adds arguments of its own, such as `--bench`.
    let mut arguments = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    match arguments.next().as_deref() {
        None => all(),
        Some("load") => {
            let mut number = || arguments.next().and_then(|text| text.parse().ok());
            let (port, calls, streams) = (number(), number(), number());
            let load = load(
                port.expect("a port"),
                calls.expect("calls"),
                streams.expect("streams"),
            );
            threads(1).block_on(load);
        }
        Some(name) => {
            let scenario = SCENARIOS.iter().find(|(known, ..)| *known == name);
            let (_, measure, _) = scenario.expect("a scenario of this name");
            let figures: Vec<_> = measure().iter().map(|figure| figure.to_string()).collect();
            println!("{}", figures.join(" "));
            // Skips freeing what is kept.
            std::process::exit(0);
        }
    }
}

/// Runs every scenario and prints the table.
fn all() {
    println!("| scenario | unit | median (range) |\n|---|---|---|");
    for (name, _, unit) in SCENARIOS {
        let rounds: Vec<Vec<f64>> = (0..ROUNDS)
            .map(|_| {
                let output = this_program().arg(name).output().expect("a process");
                let output = String::from_utf8_lossy(&output.stdout).into_owned();
                let figures = output.split_whitespace();
                figures
                    .map(|figure| figure.parse().expect("a figure"))
                    .collect()
            })
            .collect();
        let cells: Vec<_> = (0..rounds[0].len())
            .map(|figure| {
                let mut figures: Vec<f64> = rounds.iter().map(|round| round[figure]).collect();
                figures.sort_by(f64::total_cmp);
                let (low, high) = (figures[0], figures[ROUNDS - 1]);
                format!("{:.0} ({low:.0} to {high:.0})", figures[ROUNDS / 2])
            })
            .collect();
        println!("| {name} | {unit} | {} |", cells.join(", "));
    }
}

fn ended_in_process() -> Vec<f64> {
    let service = registry().layer().layer(application());
    vec![in_process(service, IN_PROCESS)]
}

fn ended_by_hand_in_process() -> Vec<f64> {
    vec![in_process(
        handwritten::Jobs::default().router(),
        IN_PROCESS,
    )]
}

fn ended_over_sockets() -> Vec<f64> {
    let service = registry().layer().layer(application());
    vec![over_sockets(service, OVER_SOCKETS)]
}

fn ended_by_hand_over_sockets() -> Vec<f64> {
    vec![over_sockets(
        handwritten::Jobs::default().router(),
        OVER_SOCKETS,
    )]
}

fn unfinished_in_process() -> Vec<f64> {
    let service = registry().layer().layer(service_fn(wait));
    vec![in_process(service, UNFINISHED), size_of_call(wait)]
}

fn unfinished_over_sockets() -> Vec<f64> {
    let service = registry().layer().layer(service_fn(wait));
    vec![over_sockets(service, UNFINISHED), size_of_call(wait)]
}

fn unfinished_with_its_head() -> Vec<f64> {
    let service = registry().layer().layer(service_fn(wait_with_head));
    vec![
        over_sockets(service, UNFINISHED),
        size_of_call(wait_with_head),
    ]
}

fn queued_over_sockets() -> Vec<f64> {
    let full = GlobalConcurrencyLimitLayer::new(0);
    let service = registry().layer().layer(full.layer(service_fn(wait)));
    vec![over_sockets(service, UNFINISHED)]
}

/// Measures the memory and processor time of ten thousand jobs that report progress each second.
fn running(streams: usize) -> Vec<f64> {
    const WATCHED: Duration = Duration::from_secs(10);
    let service = registry().layer().layer(service_fn(progress));
    threads(2).block_on(async {
        let port = listen(service).await;
        let before = resident();
        let mut load = Load::start(port, RUNNING, streams);
        load.wait_until_accepted();
        let start = processor_time();
        sleep(WATCHED).await;
        let used = processor_time() - start;
        let taken = (resident() - before) / 1e3;
        load.stop();
        vec![taken, used.as_secs_f64() * 1e3 / WATCHED.as_secs_f64()]
    })
}

/// Awaits a timer in a future that has no room for the request.
fn wait<B>(
    request: Request<B>,
) -> impl Future<Output = Result<Response<Empty<Bytes>>, Infallible>> {
    drop(request);
    async {
        sleep(Duration::from_secs(3600)).await;
        Ok(Response::default())
    }
}

/// Awaits a timer and keeps the request's head until then.
fn wait_with_head<B>(
    request: Request<B>,
) -> impl Future<Output = Result<Response<Empty<Bytes>>, Infallible>> {
    let (head, _) = request.into_parts();
    async {
        sleep(Duration::from_secs(3600)).await;
        drop(head);
        Ok(Response::default())
    }
}

async fn progress<B>(request: Request<B>) -> Result<Response<Empty<Bytes>>, Infallible> {
    drop(request);
    let job = JobHandle::current();
    for second in 0..3600 {
        job.progress(f64::from(second) / 3600.0);
        sleep(Duration::from_secs(1)).await;
    }
    Ok(Response::default())
}

/// Returns the size of the future that a service returns.
fn size_of_call<F: Future>(_: impl Fn(Request<RequestBody<Incoming>>) -> F) -> f64 {
    size_of::<F>() as f64
}

fn registry() -> Jobs {
    Jobs::builder()
        .max_bytes(usize::MAX)
        .max_unfinished(1_000_000)
        .job_timeout(None)
        .retain(Duration::from_secs(24 * 3600))
        .build()
}

/// Measures the bytes per job without sockets.
fn in_process<S, R>(mut service: S, jobs: usize) -> f64
where
    S: Service<Request<subjects::RequestBody>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    let mut submit = async |jobs: usize| {
        for job in 0..jobs {
            let accepted = service.ready().await.map_err(Into::into);
            let accepted = accepted.expect("always ready").call(submission()).await;
            let accepted = accepted.map_err(Into::into).expect("an answer");
            assert_eq!(accepted.status(), 202);
            if job % BATCH == 0 {
                yield_now().await;
            }
        }
        yield_now().await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        submit(WARM_UP).await;
        let before = resident();
        submit(jobs).await;
        (resident() - before) / jobs as f64
    })
}

/// Measures the bytes per job if another process submits them.
fn over_sockets<S, R>(service: S, jobs: usize) -> f64
where
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    threads(2).block_on(async {
        let port = listen(service).await;
        let submit = async |jobs| {
            let mut load = Load::start(port, jobs, 0);
            load.wait_until_accepted();
            load.stop();
            // Lets the last jobs end and their connections close.
            sleep(Duration::from_millis(200)).await;
        };
        submit(WARM_UP).await;
        let before = resident();
        submit(jobs).await;
        (resident() - before) / jobs as f64
    })
}

/// Serves in the background and returns the port.
async fn listen<S, R>(service: S) -> u16
where
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(serve(listener, service));
    port
}

/// Another process, which submits jobs and watches some of them until it is stopped.
struct Load(Child);

impl Load {
    fn start(port: u16, jobs: usize, streams: usize) -> Self {
        let numbers = [port.into(), jobs, streams].map(|number| number.to_string());
        let child = this_program()
            .arg("load")
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("a process"))
    }

    /// Waits until all jobs are accepted. Blocks this thread; the runtime has others.
    fn wait_until_accepted(&mut self) {
        let output = self.0.stdout.as_mut().expect("a pipe");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "accepted\n");
    }

    fn stop(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("an exit status").success());
    }
}

/// Submits jobs and opens event streams, in the other process.
async fn load(port: usize, calls: usize, streams: usize) {
    const CONNECTIONS: usize = 8;
    let address = SocketAddr::from(([127, 0, 0, 1], port.try_into().expect("a port")));
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let submit = |calls: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut locations = Vec::new();
            for _ in 0..calls {
                let (mut head, body) = submission().into_parts();
                head.uri = format!("http://{address}/reports").parse().expect("a URI");
                let accepted = client.request(Request::from_parts(head, body)).await;
                let accepted = accepted.expect("an answer");
                assert_eq!(accepted.status(), 202);
                if locations.len() < streams {
                    let location = &accepted.headers()[header::LOCATION];
                    locations.push(location.to_str().expect("text").to_owned());
                }
                accepted.into_body().collect().await.expect("a document");
            }
            locations
        })
    };
    let accepted = join_all((0..CONNECTIONS).map(|_| submit(calls / CONNECTIONS))).await;
    let locations = accepted
        .into_iter()
        .flat_map(|locations| locations.expect("no panic"));
    for location in locations.take(streams) {
        let request = Request::get(format!("http://{address}{location}"))
            .header(header::ACCEPT, "text/event-stream");
        let request = request.body(Full::default()).expect("a request");
        let events = client.request(request).await.expect("an answer");
        assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
        let mut events = events.into_body();
        // Waits for the first event.
        events.frame().await.expect("an event").expect("a frame");
        tokio::spawn(async move { while let Some(Ok(_)) = events.frame().await {} });
    }
    println!("accepted");
    let stopped = tokio::task::spawn_blocking(|| stdin().read(&mut [0]));
    stopped.await.expect("no panic").expect("the end of input");
}

fn this_program() -> Command {
    Command::new(env::current_exe().expect("a program"))
}

fn threads(workers: usize) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// Returns the resident set of this process, in bytes.
fn resident() -> f64 {
    let status = read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = kibibytes
        .expect("a size")
        .parse()
        .expect("a number of kibibytes");
    kibibytes * 1024.0
}

/// Returns the processor time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.try_into().expect("a positive time")
}
