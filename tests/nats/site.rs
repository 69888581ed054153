//! What a process of a site has: a registry, and the service behind its layer.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, Message, consumer::PullConsumer, stream::Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::Notify, task::JoinHandle};
use tower::{BoxError, Layer, Service, service_fn, util::BoxCloneSyncService};
use tower_accepted::{
    Accepted, Builder, Jobs, RequestBody, When,
    store::nats::{NatsOptions, NatsStore},
};

use crate::{
    server::Servers,
    suites::routes::Inner,
    support::{Answer, Body, Counter, get, ok, send, with},
};

/// Short times, so that what takes one is over soon.
pub(crate) fn options() -> NatsOptions {
    NatsOptions::new()
        .lease(Duration::from_secs(1))
        .retain(Duration::from_secs(60))
}

/// A process's registry: it has a connection of its own.
pub(crate) async fn process(
    servers: &Servers,
    options: NatsOptions,
    builder: Builder,
) -> Jobs<NatsStore> {
    connected(servers.client().await, options, builder).await
}

/// The same with a connection of another kind.
pub(crate) async fn connected(
    client: async_nats::Client,
    options: NatsOptions,
    builder: Builder,
) -> Jobs<NatsStore> {
    let store = NatsStore::connect(client, options).await.expect("streams");
    builder.build_with(store)
}

/// Runs a worker in this process.
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

/// A process that accepts, one that is to work, and the server that they share.
pub(crate) struct Pair {
    pub(crate) servers: Servers,
    pub(crate) worker: Jobs<NatsStore>,
    /// What is accepted by the other.
    pub(crate) site: Layered,
}

impl Pair {
    pub(crate) async fn start(options: NatsOptions) -> Option<Self> {
        let servers = Servers::one().await?;
        let web = process(&servers, options.clone(), Jobs::builder()).await;
        let worker = process(&servers, options, Jobs::builder()).await;
        let site = served(&web);
        Some(Self {
            servers,
            worker,
            site,
        })
    }
}

/// A service that counts its calls, and answers each with its name.
pub(crate) fn counting(calls: &Counter, name: &'static str) -> Inner {
    let calls = calls.clone();
    BoxCloneSyncService::new(service_fn(move |_| {
        calls.up();
        async move { ok(name) }
    }))
}

/// One that answers when it is let go on.
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

/// One that never answers.
pub(crate) fn hanging(calls: &Counter) -> Inner {
    waiting(calls, &Arc::default(), "never")
}

/// Hands a request over under `After` in a process of its own, which never answers it and is shut down with its runtime.
pub(crate) async fn handed_over(
    servers: &Servers,
    options: NatsOptions,
    calls: &Counter,
    request: Request<Body>,
) -> (Runtime, Answer) {
    let runtime = Runtime::new().expect("a runtime");
    let (url, never) = (servers.url(), hanging(calls));
    let sending = runtime.spawn(async move {
        let client = async_nats::connect(url).await.expect("a connection");
        let jobs = connected(client, options, Jobs::builder()).await;
        let when = When::After(Duration::from_millis(50));
        send(&jobs.layer().when(when).layer(never), request).await
    });
    (runtime, sending.await.expect("no panic"))
}

/// Waits at the monitor for the end of a job.
pub(crate) async fn ended<S, R>(site: &S, location: &str) -> Answer
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let looking = async {
        loop {
            let answer = send(site, with(get(location), &[("prefer", "wait=10")])).await;
            let document = answer.json();
            match document["status"].as_str() {
                Some("queued" | "running") => {}
                _ => return answer,
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(120), looking).await;
    ended.expect("the job ends")
}

/// The layer of a registry around a service.
pub(crate) fn layered<S>(jobs: &Jobs<NatsStore>, service: S) -> Accepted<S, When, NatsStore> {
    jobs.layer().layer(service)
}

pub(crate) type Layered = Accepted<Inner, When, NatsStore>;

/// The same where nothing is run here.
pub(crate) fn served(jobs: &Jobs<NatsStore>) -> Layered {
    layered(jobs, counting(&Counter::default(), "here"))
}

/// Looks again and again: of what goes on in another process nobody tells.
pub(crate) async fn until(mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let looking = tokio::time::timeout(Duration::from_secs(60), looking);
    looking.await.expect("it comes to that");
}

/// A stream that is there.
pub(crate) async fn stream(servers: &Servers, name: &str) -> Stream {
    let jetstream = jetstream::new(servers.client().await);
    jetstream.get_stream(name).await.expect("it is there")
}

/// What the queue hands out, as to a worker.
pub(crate) async fn handed_out(servers: &Servers) -> Option<Message> {
    let queue = stream(servers, "accepted_queue").await;
    let workers = queue.get_consumer("accepted_workers").await;
    let workers: PullConsumer = workers.expect("it is there");
    let messages = workers.fetch().max_messages(1).messages().await;
    let message = messages.expect("an answer").next().await;
    message.map(|message| message.expect("a message"))
}

/// Writes a record as the store writes it.
pub(crate) async fn write(servers: &Servers, subject: String, record: &Value) {
    let head = record.to_string();
    let length = u32::try_from(head.len()).expect("a short one");
    let payload = [&[1][..], &length.to_be_bytes(), head.as_bytes()].concat();
    put_back(servers, vec![(subject, payload.into())]).await;
}

pub(crate) async fn put_back(servers: &Servers, messages: Vec<(String, Bytes)>) {
    let jetstream = jetstream::new(servers.client().await);
    for (subject, payload) in messages {
        let written = jetstream.publish(subject, payload).await;
        written.expect("sent").await.expect("stored");
    }
}
