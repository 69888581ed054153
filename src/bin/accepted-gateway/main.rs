//! The program `accepted-gateway`, which puts 202 (Accepted) in front of any HTTP server.
//!
//! Without flags it starts a slow demo server and prints commands to try. `--help` lists the flags.
//! A request takes this way:
//!
//! ```text
//! serve ─► validate ─┬─► health
//!                    └─► AcceptedLayer ─┬─► its monitor
//!                                       └─► proxy (headers) ─► upstream
//! ```

mod cli;
mod demo;
mod error;
mod headers;
mod health;
mod listen;
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod output;
mod peer;
mod proxy;
mod serve;
mod signals;
mod validate;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use tower::BoxError;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

#[cfg(feature = "nats")]
use crate::cli::Role;
use crate::{cli::Cli, output::print, proxy::Proxy, serve::Gateway, signals::Signals};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(format)
        .with(log_filter())
        .init();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accepted-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), BoxError> {
    let signals = Signals::listen()?;
    #[cfg(feature = "nats")]
    if cli.role == Role::Worker {
        return nats::work(&cli, signals).await;
    }
    let listener = listen::bind(&cli.listen).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let (upstream, note, tour) = match &cli.upstream {
        Some(upstream) => (upstream.clone(), "", String::new()),
        None => (
            demo::start().await?,
            " (a demo; set yours with --upstream URL)",
            demo::tour(&address, &cli.monitor, cli.require_key),
        ),
    };
    print(&format!(
        "Listening on {address}, in front of http://{upstream}{note}.\n{}\n{tour}",
        cli.summary(),
    ));
    metrics::serve(&cli).await?;
    #[cfg(feature = "nats")]
    if cli.nats.is_some() {
        return nats::serve(&cli, upstream, listener, signals).await;
    }
    let proxy = Proxy::new(upstream).service();
    Gateway::new(cli.jobs().retain(cli.retain()).build(), proxy, &cli)
        .serve(listener, signals, cli.drain())
        .await
}

/// Returns the filter in `RUST_LOG`, or the level `info` if the variable is unset or invalid.
fn log_filter() -> Targets {
    let default = Targets::new().with_default(LevelFilter::INFO);
    match env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter.parse().unwrap_or_else(|error| {
            eprintln!("accepted-gateway: ignored RUST_LOG: {error}");
            default
        }),
        _ => default,
    }
}
