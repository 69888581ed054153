//! Jobs in JetStream, shared with other gateways.

use async_nats::ConnectOptions;
use http::uri::Authority;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::BoxError;
use tower_accepted::{Jobs, RequestBody, store::nats::NatsStore};

use crate::{
    gateway,
    options::{Options, Role},
    proxy::Proxy,
    say,
    signals::Signals,
};

/// Takes requests, and runs them too if that is its role, until a signal has come and what runs here is
/// done or handed back.
pub(crate) async fn serve(
    options: &Options,
    upstream: Authority,
    listener: TcpListener,
    signals: Signals,
) -> Result<(), BoxError> {
    let jobs = connect(options).await?;
    let proxy = Proxy::<RequestBody<Incoming>>::new(upstream).service();
    let worker = jobs.worker(proxy.clone());
    let working = (options.role == Role::Both)
        .then(|| tokio::spawn(worker.concurrency(options.concurrency).run()));
    let gateway = gateway(jobs, proxy, options);
    gateway.serve(listener, signals, options.drain()).await?;
    if let Some(working) = working {
        working.await?;
    }
    Ok(())
}

/// Runs requests that other gateways have taken, until a signal has come and what runs here is done or
/// handed back.
pub(crate) async fn work(options: &Options, mut signals: Signals) -> Result<(), BoxError> {
    let upstream = options.upstream.clone();
    let upstream = upstream.ok_or("a worker needs to know its --upstream")?;
    let jobs = connect(options).await?;
    let proxy = Proxy::<RequestBody<Incoming>>::new(upstream.clone()).service();
    let worker = jobs.worker(proxy).concurrency(options.concurrency);
    let working = tokio::spawn(worker.run());
    say(&format!(
        "Running accepted requests against http://{upstream}.\n"
    ));
    signals.next().await;
    tracing::info!(unfinished = jobs.unfinished(), "shutting down");
    tokio::select! {
        cut = jobs.drain(options.drain()) => match cut {
            0 => tracing::info!("every job has ended"),
            cut => tracing::warn!(jobs = cut, "jobs that took too long were handed back or cut"),
        },
        () = signals.next() => return Err("ended by a second signal".into()),
    }
    working.await?;
    Ok(())
}

async fn connect(options: &Options) -> Result<Jobs<NatsStore>, BoxError> {
    let url = options.nats.as_deref().unwrap_or_default();
    let servers: Vec<&str> = url.split(',').collect();
    let client = ConnectOptions::new().name("gateway").connect(servers).await;
    let client = client.map_err(|error| format!("no connection to {url}: {error}"))?;
    let store = NatsStore::connect(client, options.in_nats()).await?;
    Ok(options.jobs().build_with(store))
}
