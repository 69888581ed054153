//! The processes that share the file. Each accepts requests and runs a worker.

use std::{
    env, io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower_accepted::{Jobs, store::sqlite::SqliteStore};

use super::{WORKER_CONCURRENCY, journal::Journal, options, shared::TestProcess, task::Task};
use crate::{site::registry, support::Body};

/// The environment variable that holds the directory of the file.
const DIRECTORY: &str = "ACCEPTED_CHAOS_DIRECTORY";

/// The name of [`server_process`] in this binary.
const SERVER_TEST: &str = "chaos::server::server_process";

/// The maximum time that a call takes, in milliseconds.
const MAX_WORK_MS: u64 = 300;

/// The size of the frames of a response.
const FRAME_BYTES: usize = 50_000;

pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("jobs.db")
}

pub(super) fn journal(directory: &Path) -> PathBuf {
    directory.join("journal")
}

pub(super) fn log(directory: &Path) -> PathBuf {
    directory.join("servers.log")
}

/// Starts a process that serves a listener, which outlives it.
pub(super) fn start_server(directory: &Path, listener: TcpListener) -> TestProcess {
    let mut command = TestProcess::command(SERVER_TEST, &log(directory));
    command
        .env(DIRECTORY, directory)
        .stdin(OwnedFd::from(listener));
    TestProcess::start(command)
}

/// Serves standard input, a listener, if the environment says so. This is no test:
/// [`start_server`] starts it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the chaos test starts it"]
async fn server_process() {
    let Ok(directory) = env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    let listener = io::stdin().as_fd().try_clone_to_owned();
    let listener = TcpListener::from(listener.expect("a descriptor"));
    listener.set_nonblocking(true).expect("a listener");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let store = SqliteStore::open(database(directory), options()).await;
    let jobs = registry(Jobs::builder(), store.expect("the file opens"));
    let journal = Journal::open(&journal(directory));
    let service = Router::new().fallback(move |request| run(journal, request));
    let worker = jobs.worker::<_, Body>(service.clone());
    tokio::spawn(worker.concurrency(WORKER_CONCURRENCY).run());
    let served = axum::serve(listener, service.layer(jobs.layer())).await;
    served.expect("the listener accepts");
}

async fn run(journal: Journal, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    journal.begin(&path);
    let task = Task::from_path(&path);
    let body = request.into_body().collect().await.expect("a stored body");
    let mut response = Response::new(Body::empty());
    if body.to_bytes() == task.request_body() {
        let work = Duration::from_millis(rand::random_range(0..MAX_WORK_MS));
        sleep(work).await;
        let frames = Bytes::from(task.response_body());
        let frames: Vec<_> = frames
            .chunks(FRAME_BYTES)
            .map(|frame| Ok::<_, io::Error>(frames.slice_ref(frame)))
            .collect();
        *response.body_mut() = Body::from_stream(stream::iter(frames));
    } else {
        // It fails the job, and so the test.
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    journal.end(&path);
    response
}
