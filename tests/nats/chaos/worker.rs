//! Workers in processes of their own, so that the test can kill them.

use std::{env, fs, io::Write, path::Path, process, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::sleep;
use tower::service_fn;
use tower_accepted::{Jobs, RequestBody, store::nats::NatsStore};

use super::{WORKER_CONCURRENCY, connect, options, shared::TestProcess, task::Task};
use crate::{
    site::registry,
    support::{Body, Failed},
};

/// The environment variable that holds a worker's server URL and its journal.
const WORKER: &str = "ACCEPTED_CHAOS_WORKER";

/// The name of [`worker_process`] in this binary.
const WORKER_TEST: &str = "chaos::worker::worker_process";

/// The time between two attempts to connect a store.
const CONNECT_DELAY: Duration = Duration::from_millis(200);

/// Starts a worker. Its journal is in the directory of its log.
pub(super) fn start_worker(url: &str, journal: &Path) -> TestProcess {
    let log = journal.with_file_name("workers.log");
    let mut command = TestProcess::command(WORKER_TEST, &log);
    command.env(WORKER, format!("{url} {}", journal.display()));
    TestProcess::start(command)
}

/// Runs a worker if the environment says so. This is no test: [`start_worker`] starts it.
#[tokio::test]
#[ignore = "the chaos test starts it"]
async fn worker_process() {
    let Ok(settings) = env::var(WORKER) else {
        return;
    };
    let (url, journal) = settings.split_once(' ').expect("a URL and a file");
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let client = connect(url).await;
    // The cluster may have no leader yet.
    let store = loop {
        match NatsStore::connect(client.clone(), options()).await {
            Ok(store) => break store,
            Err(error) => println!("{error}"),
        }
        sleep(CONNECT_DELAY).await;
    };
    let jobs = registry(Jobs::builder(), store);
    let journal = fs::OpenOptions::new().append(true).open(journal);
    let journal = Arc::new(Mutex::new(journal.expect("the journal exists")));
    let service = service_fn(move |request: Request<RequestBody<Body>>| {
        // One system call writes the line, so a kill does not split it.
        let line = format!("{} {}\n", process::id(), request.uri().path());
        let written = journal.lock().write_all(line.as_bytes());
        written.expect("the journal is writable");
        run(request)
    });
    let worker = jobs.worker::<_, Body>(service);
    worker.concurrency(WORKER_CONCURRENCY).run().await;
}

async fn run(request: Request<RequestBody<Body>>) -> Result<Response<Body>, Failed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Failed)?.to_bytes();
    // A wrong body fails the job, and so the test.
    if body != Task::from_path(head.uri.path()).body() {
        return Err(Failed);
    }
    let work = Duration::from_millis(rand::random_range(0..300));
    sleep(work).await;
    Ok(Response::new(Body::from(body)))
}
