//! What a process of a site has: a registry, and the service behind its layer.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{sync::Notify, task::JoinHandle};
use tower::{BoxError, Layer, Service};
use tower_accepted::{
    Builder, Jobs, RequestBody,
    store::{NatsOptions, NatsStore},
};

use crate::{
    server::Servers,
    support::{Answer, Body, Counter, Failed, get, inner, ok, send, with},
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

/// A service that counts its calls, and answers each with its name when it is let go on.
pub(crate) fn waiting(
    calls: &Counter,
    go: &Arc<Notify>,
    name: &'static str,
) -> impl Service<
    Request<RequestBody<Body>>,
    Response = Response<Body>,
    Error = Failed,
    Future = impl Future<Output = Result<Response<Body>, Failed>> + Send + 'static,
> + Clone
+ Send
+ 'static {
    let (begun, go) = (calls.clone(), go.clone());
    inner(move |_| {
        begun.up();
        let go = go.clone();
        async move {
            go.notified().await;
            ok(name)
        }
    })
}

/// Waits at the monitor for the end of a job.
pub(crate) async fn ended<S, R>(site: &S, location: &str) -> Answer
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = bytes::Bytes>,
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
pub(crate) fn layered<S>(
    jobs: &Jobs<NatsStore>,
    service: S,
) -> tower_accepted::Accepted<S, tower_accepted::When, NatsStore> {
    jobs.layer().layer(service)
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
