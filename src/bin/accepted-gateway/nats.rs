//! Connects a gateway to NATS JetStream, or runs a worker there.

use std::future::ready;

use async_nats::ConnectOptions;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tower::BoxError;
use tower_accepted::{Jobs, JobsBuilder, RequestBody, store::nats::NatsStore};

use crate::{
    body::ClientBody,
    calls::LimitCalls,
    cli::Cli,
    descriptors::DescriptorShares,
    health::HealthCheck,
    listen,
    metrics::Metrics,
    output::print,
    proxy::Proxy,
    serve::{Shutdown, drain},
    signals::Signals,
};

/// Runs requests that other gateways accepted, until a signal comes and the drain ends.
pub(crate) async fn work(
    cli: &Cli,
    builder: JobsBuilder,
    shares: DescriptorShares,
    mut signals: Signals,
) -> Result<Shutdown, BoxError> {
    let upstream = cli.upstream.clone();
    let upstream = upstream.ok_or("a worker requires --upstream")?;
    let metrics = Metrics::serve(cli).await?;
    let jobs = connect(cli, builder).await?;
    let calls = cli.calls(shares);
    let proxy = Proxy::<RequestBody<ClientBody>>::new(cli.proxy(upstream.clone())).service();
    let worker = jobs.worker(LimitCalls::new(proxy, calls));
    let working = tokio::spawn(worker.concurrency(cli.concurrency(shares)).run());
    print(&format!(
        "Running accepted requests against http://{upstream}.\n"
    ));
    metrics.announce();
    let draining = CancellationToken::new();
    if let Some(prefix) = &cli.health {
        serve_health(&cli.listen, HealthCheck::new(prefix, draining.clone())).await?;
    }
    signals.next().await;
    draining.cancel();
    let shutdown = drain(&jobs, cli.drain(), true, &mut signals).await?;
    working.await?;
    Ok(shutdown)
}

/// Serves a worker's health resources, and nothing else.
async fn serve_health(address: &str, health: HealthCheck) -> Result<(), BoxError> {
    let listener = listen::bind(address).await?;
    let address = listener.local_addr()?;
    listen::spawn_server(listener, listen::MAX_OPERATOR_CONNECTIONS, move |request| {
        ready(health.respond(&request).unwrap_or_else(|| {
            let mut not_found = Response::new(Full::default());
            *not_found.status_mut() = StatusCode::NOT_FOUND;
            not_found
        }))
    });
    print(&format!("Health resources at http://{address}.\n"));
    Ok(())
}

/// Connects to the servers, and creates the registry.
pub(crate) async fn connect(cli: &Cli, builder: JobsBuilder) -> Result<Jobs<NatsStore>, BoxError> {
    let url = cli.storage.nats.as_deref().unwrap_or_default();
    let servers: Vec<&str> = url.split(',').collect();
    let client = ConnectOptions::new()
        .name("accepted-gateway")
        .connect(servers)
        .await
        .map_err(|error| format!("failed to connect to {}: {error}", without_users(url)))?;
    let store = NatsStore::connect(client, cli.storage.nats_options(cli.retain())).await?;
    Ok(builder.store(store).try_build()?)
}

/// Removes the users and passwords of URLs, which do not belong in a log.
fn without_users(urls: &str) -> String {
    let hosts = urls.split(',').map(|url| match url.rsplit_once('@') {
        Some((_, host)) => host,
        None => url,
    });
    hosts.collect::<Vec<_>>().join(",")
}
