//! A file of jobs, and the processes that share it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_accepted::{
    Idempotency, JobId, Jobs, JobsBuilder, Owner, RequestBody,
    store::{
        Acceptance, NewJob, Store,
        sqlite::{SqliteClaim, SqliteError, SqliteOptions, SqliteStore},
    },
};

use crate::{
    suites::routes::{Inner, Outer},
    support::{Answer, Body, Counter, Failed, get, ok, post, request, send, with},
};

/// The size of a body that has a file of its own.
pub(crate) const LARGE_BYTES: usize = 300_000;

/// The time after which [`until`] and [`wait_for_end`] fail.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns options with a retention that tests outlast.
pub(crate) fn options() -> SqliteOptions {
    SqliteOptions::new()
        .retain(Duration::from_secs(120))
        .retry_delay(Duration::from_millis(200))
}

/// Returns a registry of the jobs in a store.
pub(crate) fn registry(builder: JobsBuilder, store: SqliteStore) -> Jobs<SqliteStore> {
    builder.store(store).build()
}

/// A directory with a file of jobs.
pub(crate) struct Home {
    directory: TempDir,
    pub(crate) options: SqliteOptions,
}

impl Home {
    pub(crate) fn new(options: SqliteOptions) -> Self {
        Self {
            directory: TempDir::new().expect("a temporary directory"),
            options,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory().join("jobs.db")
    }

    /// Returns the path of the write-ahead log.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory().join("jobs.db-wal")
    }

    /// Returns the path of the directory of large bodies.
    pub(crate) fn bodies(&self) -> PathBuf {
        self.directory().join("jobs.db-bodies")
    }

    /// Opens the file as another process does.
    pub(crate) async fn store(&self) -> SqliteStore {
        let store = SqliteStore::open(self.path(), self.options.clone()).await;
        store.expect("the file opens")
    }

    /// Returns the error of a file that must not open.
    pub(crate) async fn refused(&self) -> SqliteError {
        let store = SqliteStore::open(self.path(), self.options.clone()).await;
        store.expect_err("the file is refused")
    }

    /// Starts a process: a registry with a store of its own.
    pub(crate) async fn jobs(&self) -> Jobs<SqliteStore> {
        registry(Jobs::builder(), self.store().await)
    }

    /// Starts a process, and puts its layer in front of a service.
    pub(crate) async fn serve(&self, service: Inner) -> Outer {
        layered(&self.jobs().await, service)
    }

    /// Starts a process that accepts nothing and runs what waits.
    pub(crate) async fn work(&self, service: Inner) -> JoinHandle<()> {
        work(&self.jobs().await, service)
    }

    /// Copies all files as they are: what a crash of all processes leaves.
    ///
    /// A program of its own copies them, since a file of the database that is closed here would
    /// release SQLite's locks.
    pub(crate) fn crash(&self) -> Self {
        let crashed = Self::new(self.options.clone());
        let copied = Command::new("cp")
            .args(["-R", "."])
            .arg(crashed.directory())
            .current_dir(self.directory())
            .status();
        assert!(copied.expect("cp runs").success());
        crashed
    }

    /// Waits until every process has closed the file.
    pub(crate) async fn closed(&self) {
        // The last connection removes the log.
        until(async || !self.log().exists()).await;
    }

    /// Connects to the file as another program does.
    pub(crate) fn sql(&self) -> Connection {
        let connection = Connection::open(self.path()).expect("SQLite opens the file");
        let patience = connection.busy_timeout(TIMEOUT);
        patience.expect("a timeout");
        connection
    }

    /// Returns the number that a query returns.
    pub(crate) fn number(&self, query: &str) -> i64 {
        let number = self.sql().query_row(query, [], |row| row.get(0));
        number.expect("a number")
    }

    /// Returns the texts that a query returns.
    pub(crate) fn texts(&self, query: &str) -> Vec<String> {
        let connection = self.sql();
        let mut statement = connection.prepare(query).expect("a query");
        let texts = statement.query_map([], |row| row.get(0)).expect("rows");
        texts.map(|text| text.expect("a text")).collect()
    }
}

/// Returns all files and directories below a directory, in order.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Puts the layer of a process in front of a service. It reads `Idempotency-Key`.
pub(crate) fn layered(jobs: &Jobs<SqliteStore>, service: Inner) -> Outer {
    let layered = jobs.layer().idempotency(Idempotency::new()).layer(service);
    let layered = layered.map_response(|response: Response<_>| response.map(Body::new));
    BoxCloneSyncService::new(layered.map_request(|request: Request<Body>| request))
}

/// Runs a worker of a process.
pub(crate) fn work(jobs: &Jobs<SqliteStore>, service: Inner) -> JoinHandle<()> {
    tokio::spawn(jobs.worker::<_, Body>(service).run())
}

/// Returns a builder whose jobs belong to the user in `x-user`.
pub(crate) fn owned() -> JobsBuilder {
    Jobs::builder().owner(|head| head.headers.get("x-user").map(Owner::new))
}

pub(crate) fn boxed<F, Fut>(function: F) -> Inner
where
    F: Fn(Request<RequestBody<Body>>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Body>, Failed>> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(function))
}

/// Returns a service that counts its calls and answers each with `name`.
pub(crate) fn counting(calls: &Counter, name: &'static str) -> Inner {
    let calls = calls.clone();
    boxed(move |_| {
        calls.up();
        async move { ok(name) }
    })
}

/// Returns a service that answers each call.
pub(crate) fn quick() -> Inner {
    counting(&Counter::default(), "quick")
}

/// Returns a service that counts its calls and answers one per notification.
pub(crate) fn waiting(calls: &Counter, go: &Arc<Notify>, name: &'static str) -> Inner {
    let (calls, go) = (calls.clone(), go.clone());
    boxed(move |_| {
        calls.up();
        let go = go.clone();
        async move {
            go.notified().await;
            ok(name)
        }
    })
}

/// Returns a service that counts its calls and answers none.
pub(crate) fn hanging(calls: &Counter) -> Inner {
    waiting(calls, &Arc::default(), "hanging")
}

/// Accepts a request without a body, past the layer.
pub(crate) async fn accept(store: &SqliteStore, method: &str) -> SqliteClaim {
    let (head, ()) = request(method, "/it").map(drop).into_parts();
    let record = store.record(&head, &Bytes::new(), None);
    let job = NewJob::new(JobId::random());
    match store.accept(&job, record).await {
        Ok(Acceptance::RunHere(claim)) => claim,
        other => panic!("the job is new: {other:?}"),
    }
}

/// Returns a POST request with a body that has a file of its own.
pub(crate) fn large(path: &str) -> Request<Body> {
    post(path).map(|_| Body::from(vec![7; LARGE_BYTES]))
}

/// Returns a POST request with an `Idempotency-Key`.
pub(crate) fn keyed(key: &str) -> Request<Body> {
    with(post("/it"), &[("idempotency-key", &format!("\"{key}\""))])
}

/// Waits at the monitor until the job has ended.
pub(crate) async fn wait_for_end(site: &Outer, location: &str) -> Answer {
    let waiting = async {
        loop {
            let answer = send(site, with(get(location), &[("prefer", "wait=10")])).await;
            match answer.json()["status"].as_str() {
                Some("queued" | "running") => {}
                _ => return answer,
            }
        }
    };
    timeout(TIMEOUT, waiting).await.expect("the job ends")
}

/// Returns the error code of a job that failed, or else its status.
pub(crate) fn outcome(document: &Value) -> String {
    let code = document["error"]["code"].as_str();
    let outcome = code.or(document["status"].as_str());
    outcome.expect("a job's document").to_owned()
}

/// Waits until the job has ended, and returns its [`outcome`].
pub(crate) async fn end(site: &Outer, location: &str) -> String {
    outcome(&wait_for_end(site, location).await.json())
}

/// Polls a condition of another thread or process until it holds.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let polled = timeout(TIMEOUT, polling).await;
    polled.expect("the condition holds in time");
}
