//! Starts nats-servers, and the processes that share them.

use std::{sync::Arc, time::Duration};

use async_nats::ConnectOptions;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;
use tokio::{
    runtime::Runtime,
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{BoxError, Layer, Service, service_fn, util::BoxCloneSyncService};
use tower_accepted::{
    Accepted, Jobs, JobsBuilder, Owner, RequestBody, When,
    store::nats::{NatsOptions, NatsStore},
};

use crate::{
    server::Servers,
    suites::routes::Inner,
    support::{Answer, Body, Counter, get, ok, post, send, with},
    wire::Wire,
};

/// The time after which [`until`] fails.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(60);

/// The time after which [`wait_for_end`] fails.
const JOB_END_TIMEOUT: Duration = Duration::from_secs(120);

/// The time after which a process behind a [`Wire`] connects again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Returns the value of a future, or from the test if nats-server is not installed.
macro_rules! or_skip {
    ($start:expr) => {
        match $start.await {
            Some(started) => started,
            None => return,
        }
    };
}
pub(crate) use or_skip;

/// Returns options with a short lease and retention, so that tests outlast them soon.
pub(crate) fn options() -> NatsOptions {
    NatsOptions::new()
        .lease(Duration::from_secs(1))
        .retain(Duration::from_secs(60))
}

/// Returns a registry of the jobs in a store.
pub(crate) fn registry(builder: JobsBuilder, store: NatsStore) -> Jobs<NatsStore> {
    builder.store(store).build()
}

/// Returns a builder whose jobs belong to the user in `x-user`.
pub(crate) fn owned() -> JobsBuilder {
    Jobs::builder().owner(|head| head.headers.get("x-user").map(Owner::new))
}

/// Servers, and the settings that all processes of a test share.
pub(crate) struct Deployment {
    pub(crate) servers: Servers,
    pub(crate) options: NatsOptions,
    builder: JobsBuilder,
}

impl Deployment {
    /// Starts one server.
    pub(crate) async fn start(options: NatsOptions) -> Option<Self> {
        let servers = Servers::one().await?;
        Some(Self::new(servers, options))
    }

    /// Starts three servers, which keep three replicas.
    pub(crate) async fn cluster(options: NatsOptions) -> Option<Self> {
        let servers = Servers::start(3).await?;
        Some(Self::new(servers, options.replicas(3)))
    }

    pub(crate) fn new(servers: Servers, options: NatsOptions) -> Self {
        Self {
            servers,
            options,
            builder: Jobs::builder(),
        }
    }

    /// Sets the builder of every process.
    pub(crate) fn with_builder(self, builder: JobsBuilder) -> Self {
        Self { builder, ..self }
    }

    /// Connects a store of its own.
    pub(crate) async fn store(&self) -> NatsStore {
        self.store_with(self.options.clone()).await
    }

    /// Connects a store that has other options.
    pub(crate) async fn store_with(&self, options: NatsOptions) -> NatsStore {
        let client = self.servers.client().await;
        let store = NatsStore::connect(client, options).await;
        store.expect("the store connects")
    }

    /// Starts a process: a registry with a connection of its own.
    pub(crate) async fn jobs(&self) -> Jobs<NatsStore> {
        self.jobs_with(self.options.clone()).await
    }

    /// Starts a process that has other options.
    pub(crate) async fn jobs_with(&self, options: NatsOptions) -> Jobs<NatsStore> {
        registry(self.builder.clone(), self.store_with(options).await)
    }

    /// Starts a process behind a [`Wire`] that the test can cut.
    pub(crate) async fn jobs_behind_wire(&self, options: NatsOptions) -> (Wire, Jobs<NatsStore>) {
        let (wire, store) = self.store_behind_wire(options).await;
        (wire, registry(self.builder.clone(), store))
    }

    /// Connects a store behind a [`Wire`].
    pub(crate) async fn store_behind_wire(&self, options: NatsOptions) -> (Wire, NatsStore) {
        let wire = Wire::start(&self.servers.addresses()).await;
        let client = ConnectOptions::new()
            .reconnect_delay_callback(|_| RECONNECT_DELAY)
            .connect(wire.url())
            .await;
        let store = NatsStore::connect(client.expect("the wire is up"), options).await;
        (wire, store.expect("the store connects"))
    }

    /// Starts a process that accepts requests and runs none.
    pub(crate) async fn front(&self) -> Front {
        front(&self.jobs().await)
    }

    /// Starts a process that runs jobs and accepts none. It ends with its task.
    pub(crate) async fn worker<S, R>(&self, service: S) -> JoinHandle<()>
    where
        S: Service<Request<RequestBody<Body>>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send,
        R: http_body::Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        work(&self.jobs().await, service)
    }

    /// Sends a request to a process that runs it under `When::After` and never answers it.
    ///
    /// The process dies with the returned runtime.
    pub(crate) async fn accept_inline(
        &self,
        calls: &Counter,
        request: Request<Body>,
    ) -> (Runtime, Answer) {
        let runtime = Runtime::new().expect("a runtime starts");
        let (url, hanging) = (self.servers.url(), hanging(calls));
        let (options, builder) = (self.options.clone(), self.builder.clone());
        let sending = runtime.spawn(async move {
            let client = async_nats::connect(url).await.expect("the server is up");
            let store = NatsStore::connect(client, options).await;
            let jobs = registry(builder, store.expect("the store connects"));
            send(&soon_accepted(&jobs, hanging), request).await
        });
        (runtime, sending.await.expect("no panic"))
    }
}

/// The layer of a process around a service.
pub(crate) type Layered<S> = Accepted<S, When, NatsStore>;

/// The layer of a process that runs nothing.
pub(crate) type Front = Layered<Inner>;

/// Layers a registry over a service.
pub(crate) fn layered<S>(jobs: &Jobs<NatsStore>, service: S) -> Layered<S> {
    jobs.layer().layer(service)
}

/// Layers a registry over a service. A request is accepted if it takes longer than 50 ms.
pub(crate) fn soon_accepted<S>(jobs: &Jobs<NatsStore>, service: S) -> Layered<S> {
    let when = When::After(Duration::from_millis(50));
    jobs.layer().when(when).layer(service)
}

/// Layers a registry over a service that is never called.
pub(crate) fn front(jobs: &Jobs<NatsStore>) -> Front {
    layered(jobs, counting(&Counter::default(), "front"))
}

/// Runs a worker of this registry.
pub(crate) fn work<S, R>(jobs: &Jobs<NatsStore>, service: S) -> JoinHandle<()>
where
    S: Service<Request<RequestBody<Body>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    tokio::spawn(jobs.worker::<_, Body>(service).run())
}

/// Returns a service that counts its calls and answers each with `name`.
pub(crate) fn counting(calls: &Counter, name: &'static str) -> Inner {
    let calls = calls.clone();
    BoxCloneSyncService::new(service_fn(move |_| {
        calls.up();
        async move { ok(name) }
    }))
}

/// Returns a service that counts its calls and answers one per notification.
pub(crate) fn waiting(calls: &Counter, go: &Arc<Notify>, name: &'static str) -> Inner {
    let (calls, go) = (calls.clone(), go.clone());
    BoxCloneSyncService::new(service_fn(move |_| {
        calls.up();
        let go = go.clone();
        async move {
            go.notified().await;
            ok(name)
        }
    }))
}

/// Returns a service that counts its calls and answers none.
pub(crate) fn hanging(calls: &Counter) -> Inner {
    waiting(calls, &Arc::default(), "hanging")
}

/// Returns a POST request with a body larger than one message of these tests.
pub(crate) fn large(path: &str) -> Request<Body> {
    let mut large = post(path);
    *large.body_mut() = Body::from(vec![7; 600_000]);
    large
}

/// Returns a POST request with an `Idempotency-Key`.
pub(crate) fn keyed() -> Request<Body> {
    with(post("/it"), &[("idempotency-key", "\"once\"")])
}

/// Waits at the monitor until the job has ended.
pub(crate) async fn wait_for_end<S, R>(site: &S, location: &str) -> Answer
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let waiting = async {
        loop {
            let answer = send(site, with(get(location), &[("prefer", "wait=10")])).await;
            let document = answer.json();
            match document["status"].as_str() {
                Some("queued" | "running") => {}
                _ => return answer,
            }
        }
    };
    let ended = timeout(JOB_END_TIMEOUT, waiting).await;
    ended.expect("the job ends")
}

/// Returns the error code of a job that failed, or else its status.
pub(crate) fn outcome(document: &Value) -> String {
    let code = document["error"]["code"].as_str();
    let outcome = code.or(document["status"].as_str());
    outcome.expect("a job's document").to_owned()
}

/// Waits until the job has ended, and checks its [`outcome`].
pub(crate) async fn assert_end(site: &Front, location: &str, expected: &str) {
    let end = wait_for_end(site, location).await;
    assert_eq!(outcome(&end.json()), expected, "{end:?}");
}

/// Polls a condition of another process until it holds.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let polled = timeout(CONDITION_TIMEOUT, polling).await;
    polled.expect("the condition holds in time");
}
