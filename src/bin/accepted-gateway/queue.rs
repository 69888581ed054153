//! Serves jobs that outlive this process, and runs those that no other process runs.

use http::uri::Authority;
use tokio::net::TcpListener;
use tower::BoxError;
use tower_accepted::{Jobs, RequestBody, store::Queue};

use crate::{
    body::ClientBody,
    calls::LimitCalls,
    cli::Cli,
    descriptors::DescriptorShares,
    proxy::Proxy,
    serve::{Gateway, Shutdown},
    signals::Signals,
};

/// Accepts requests until a signal comes and the drain ends. Also runs a worker, unless the flags
/// say otherwise.
pub(crate) async fn serve<St: Queue>(
    cli: &Cli,
    jobs: Jobs<St>,
    shares: DescriptorShares,
    upstream: Authority,
    listener: TcpListener,
    signals: Signals,
) -> Result<Shutdown, BoxError> {
    let proxy = Proxy::<RequestBody<ClientBody>>::new(cli.proxy(upstream.clone())).service();
    let proxy = LimitCalls::new(proxy, cli.calls(shares));
    let direct = Proxy::new(cli.proxy(upstream)).service();
    let worker = jobs.worker(proxy.clone());
    let worker = worker.concurrency(cli.concurrency(shares));
    let working = cli.storage.runs_jobs().then(|| tokio::spawn(worker.run()));
    let layer = cli.layer(&jobs);
    let gateway = Gateway::new(jobs, layer, proxy, direct, cli.gateway(shares));
    let shutdown = gateway.serve(listener, signals, cli.drain()).await?;
    if let Some(working) = working {
        working.await?;
    }
    Ok(shutdown)
}
