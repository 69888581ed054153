//! A site of several processes that loses no accepted request while its processes crash.
//!
//! `cargo run --release --features nats --example cluster` starts three nats-servers, two web
//! processes and two workers. It kills one after the other while a client submits requests, and
//! prints what became of them. It requires `nats-server` (`apt-get install nats-server`).

mod client;
mod killer;
mod process;
#[allow(dead_code, reason = "tests and benches use all of it")]
mod servers;
mod site;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use crate::{client::Client, servers::Servers, site::Site};

/// Kills the processes of a site one after the other while a client submits requests
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// The number of requests
    #[arg(long, default_value_t = 400)]
    requests: usize,

    /// The time over which the client sends them, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// The role of a process of the site
    #[command(subcommand)]
    process: Option<ProcessRole>,
}

// The roles of the processes, which run this same program. A doc comment would replace the help.
#[derive(Debug, Subcommand)]
enum ProcessRole {
    /// Accepts requests and serves the monitor
    #[command(hide = true)]
    Web { nats: String, listen: String },
    /// Runs requests
    #[command(hide = true)]
    Worker { nats: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.process {
        None => demonstrate(&arguments).await,
        Some(ProcessRole::Web { nats, listen }) => process::web(nats, listen).await,
        Some(ProcessRole::Worker { nats }) => process::worker(nats).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(arguments: &Arguments) -> Result<(), BoxError> {
    println!("Starting a cluster of three nats-servers …");
    let Some(servers) = Servers::start(3).await else {
        return Err("nats-server is not installed".into());
    };
    println!("Starting two web processes and two workers …");
    let mut site = Site::start(servers)?;
    let client = Client::new(site.addresses());
    client.wait_until_served().await;
    println!(
        "Sending {} requests over {} s while processes are killed:\n",
        arguments.requests, arguments.seconds
    );
    let done = CancellationToken::new();
    let submitting = async {
        let pace = Duration::from_secs(arguments.seconds) / arguments.requests.max(1) as u32;
        let summary = client.submit(arguments.requests, pace).await;
        done.cancel();
        summary
    };
    let (summary, ()) = tokio::join!(submitting, killer::kill(&mut site, &done));
    println!("\n{summary}");
    if summary.is_complete() {
        println!("\nNo accepted request was lost.");
        Ok(())
    } else {
        Err("some accepted requests have no result".into())
    }
}
