//! The program `accepted-gateway`, which puts 202 (Accepted) in front of any HTTP server.
//!
//! Without flags it starts a slow demo server and prints commands to try. `--help` lists the flags.
//! A request takes this way:
//!
//! ```text
//! serve ─► normalize ─┬─► health
//!                     ├─► AcceptedLayer ─┬─► its monitor
//!                     │                  └─► calls ─► proxy ─► upstream
//!                     └─► proxy ─► upstream, if the request cannot become a job
//! ```

mod body;
#[cfg(feature = "webhook")]
mod callbacks;
mod calls;
mod choices;
mod cli;
#[cfg(feature = "sqlite")]
mod command;
mod connect;
mod connections;
mod cors;
mod demo;
mod descriptors;
mod error;
mod forwarded;
mod headers;
mod health;
mod hold;
mod list;
mod listen;
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod normalize;
mod notes;
mod output;
mod parse;
mod peer;
mod proxy;
#[cfg(any(feature = "nats", feature = "sqlite"))]
mod queue;
mod serve;
mod signals;
#[cfg(feature = "sqlite")]
mod sqlite;
mod storage;
mod stream;

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
use crate::choices::Role;
use crate::{
    calls::LimitCalls,
    cli::Cli,
    descriptors::DescriptorShares,
    metrics::Metrics,
    output::print,
    proxy::Proxy,
    serve::{Gateway, Shutdown},
    signals::Signals,
};

/// glibc's allocator keeps most of the memory of a peak.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The maximum number of threads that look up names, or read and write the files of a store. Each
/// takes up to two file descriptors.
const MAX_BLOCKING_THREADS: usize = 16;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(format)
        .with(log_filter())
        .init();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(BoxError::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    ended.unwrap_or_else(|error| {
        eprintln!("accepted-gateway: {error}");
        ExitCode::FAILURE
    })
}

async fn run(cli: Cli) -> Result<ExitCode, BoxError> {
    #[cfg(feature = "sqlite")]
    if let Some(command) = cli.command {
        command.run().await?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(Box::pin(run_gateway(cli)).await?.into())
}

async fn run_gateway(cli: Cli) -> Result<Shutdown, BoxError> {
    let signals = Signals::listen()?;
    let shares = DescriptorShares::acquire();
    let jobs = cli.jobs();
    #[cfg(feature = "webhook")]
    let (jobs, shares) = cli.callbacks.add_to(jobs, shares)?;
    #[cfg(feature = "nats")]
    if cli.storage.role == Role::Worker {
        return nats::work(&cli, jobs, shares, signals).await;
    }
    let mut shares = if cli.storage.has_body_files() {
        shares.with_body_files()
    } else {
        shares
    };
    let listener = listen::bind(&cli.listen).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let metrics = Metrics::serve(&cli).await?;
    // Opened before the first line is printed, which says that the gateway serves.
    #[cfg(feature = "nats")]
    let shared_jobs = match cli.storage.nats {
        Some(_) => Some(nats::connect(&cli, jobs.clone()).await?),
        None => None,
    };
    #[cfg(feature = "sqlite")]
    let stored_jobs = match cli.storage.file() {
        Some(file) => Some(sqlite::open(&cli, jobs.clone(), file).await?),
        None => None,
    };
    let (upstream, note, tour) = match &cli.upstream {
        Some(upstream) => (upstream.clone(), "", String::new()),
        None => {
            shares = shares.halved();
            (
                demo::start().await?,
                " (a demo; set yours with --upstream URL)",
                demo::tour(&address, &cli.monitor, cli.when(), cli.require_key),
            )
        }
    };
    print(&format!(
        "Listening on {address}, in front of http://{upstream}{note}.\n{}\n{tour}",
        cli.summary(),
    ));
    metrics.announce();
    #[cfg(feature = "nats")]
    if let Some(jobs) = shared_jobs {
        return queue::serve(&cli, jobs, shares, upstream, listener, signals).await;
    }
    #[cfg(feature = "sqlite")]
    if let Some(jobs) = stored_jobs {
        return queue::serve(&cli, jobs, shares, upstream, listener, signals).await;
    }
    let proxy = Proxy::new(cli.proxy(upstream.clone())).service();
    let proxy = LimitCalls::new(proxy, cli.calls(shares));
    let direct = Proxy::new(cli.proxy(upstream)).service();
    let jobs = jobs.retain(cli.retain()).try_build()?;
    let layer = cli.layer(&jobs);
    Gateway::new(jobs, layer, proxy, direct, cli.gateway(shares))
        .serve(listener, signals, cli.drain())
        .await
}

/// Returns the filter in `RUST_LOG`. If the variable is unset or invalid, that is the level `info`
/// without a line for each accepted request.
fn log_filter() -> Targets {
    let default = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("tower_accepted::middleware", LevelFilter::WARN);
    match env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter.parse().unwrap_or_else(|error| {
            eprintln!("accepted-gateway: ignored RUST_LOG: {error}");
            default
        }),
        _ => default,
    }
}
