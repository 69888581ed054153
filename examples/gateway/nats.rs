//! Jobs in JetStream, shared with other gateways.

use async_nats::ConnectOptions;
use http::uri::Authority;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::BoxError;
use tower_accepted::{Jobs, RequestBody, store::NatsStore};

use crate::{
    gateway,
    options::{Options, Role},
    proxy::Proxy,
    signals::Signals,
};

/// Takes requests, or runs them, or both, until a signal has come and what runs here is done or handed
/// back.
pub(crate) async fn run(
    url: &str,
    options: &Options,
    upstream: Authority,
    listener: TcpListener,
    mut signals: Signals,
) -> Result<(), BoxError> {
    let servers: Vec<&str> = url.split(',').collect();
    let client = ConnectOptions::new()
        .name("gateway")
        .connect(servers)
        .await
        .map_err(|error| format!("no connection to {url}: {error}"))?;
    let store = NatsStore::connect(client, options.in_nats()).await?;
    let jobs: Jobs<NatsStore> = options.jobs().build_with(store);
    let proxy = Proxy::<RequestBody<Incoming>>::new(upstream).service();
    let worker = jobs.worker(proxy.clone()).concurrency(options.concurrency);
    let working = match options.role {
        Role::Web => None,
        Role::Worker | Role::Both => Some(tokio::spawn(worker.run())),
    };
    match options.role {
        Role::Worker => {
            drop(listener);
            signals.next().await;
            tracing::info!(unfinished = jobs.unfinished(), "shutting down");
            tokio::select! {
                _ = jobs.drain(options.drain()) => {}
                () = signals.next() => return Err("ended by a second signal".into()),
            }
        }
        Role::Web | Role::Both => {
            let gateway = gateway(jobs, proxy, options);
            gateway.serve(listener, signals, options.drain()).await?;
        }
    }
    if let Some(working) = working {
        working.await?;
    }
    Ok(())
}
