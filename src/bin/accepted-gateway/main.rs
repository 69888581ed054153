//! 202 (Accepted) in front of any HTTP server, without changing it.
//!
//! `cargo run --release --example gateway` starts with a slow server of its own and says what to
//! try; `-- --help` tells the rest. The way of a request:
//!
//! ```text
//! serve ─► entrance ─► the layer ─┬─► its monitor
//!                                 └─► proxy (fields) ─► upstream
//! ```

mod demo;
mod entrance;
mod fields;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod options;
mod problem;
mod proxy;
mod serve;
mod signals;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer};
use tower_accepted::{Accepted, Jobs, When, store::Store};
use tracing_subscriber::EnvFilter;

#[cfg(feature = "nats")]
use crate::options::Role;
use crate::{options::Options, proxy::Proxy, serve::Gateway, signals::Signals};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), BoxError> {
    let signals = Signals::listen()?;
    #[cfg(feature = "nats")]
    if options.role == Role::Worker {
        return nats::work(&options, signals).await;
    }
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = format!("http://{}", listener.local_addr()?);
    let (upstream, tour) = match &options.upstream {
        Some(upstream) => (upstream.clone(), None),
        None => {
            let tour = demo::tour(&address, &options.monitor, options.require_key);
            (demo::start().await?, Some(tour))
        }
    };
    say(&format!(
        "Listening on {address}, in front of http://{upstream}{}.\n{}\n{}",
        tour.as_ref()
            .map_or("", |_| " (a demo; set yours with --upstream URL)"),
        options.summary(),
        tour.unwrap_or_default(),
    ));
    #[cfg(feature = "metrics")]
    if let Some(address) = &options.metrics {
        let address = metrics::serve(address).await?;
        say(&format!("Metrics at http://{address}/metrics.\n"));
    }
    #[cfg(feature = "nats")]
    if options.nats.is_some() {
        return nats::serve(&options, upstream, listener, signals).await;
    }
    let jobs = options.jobs().build();
    let proxy = Proxy::new(upstream).service();
    gateway(jobs, proxy, &options)
        .serve(listener, signals, options.drain())
        .await
}

/// The layer around the proxy, as these options have it.
fn gateway<S, St: Store>(
    jobs: Jobs<St>,
    proxy: S,
    options: &Options,
) -> Gateway<Accepted<S, When, St>, St> {
    let layer = jobs
        .layer()
        .when(options.when())
        .idempotency(options.idempotency());
    Gateway {
        jobs,
        monitor: options.monitor.clone(),
        service: layer.layer(proxy),
        draining: CancellationToken::new(),
    }
}

/// Prints what is nice to know, and goes on where nobody listens.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
