//! A whole site on this machine, and a client that submits while parts of it are killed.
//!
//! `cargo run --release --features nats --example cluster` starts three nats-servers, two web and two worker
//! processes, kills one of them after the other, and ends with what has become of the requests. It needs
//! `nats-server` (`apt-get install nats-server`).

mod client;
mod killer;
mod process;
#[allow(dead_code, reason = "tests and benches use more of it")]
mod servers;
mod site;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use crate::{client::Client, servers::Servers, site::Site};

#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Options {
    /// How many requests are submitted
    #[arg(long, default_value_t = 400)]
    requests: usize,

    /// Over how long they are spread, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// What a process of the site does
    #[command(subcommand)]
    role: Option<Role>,
}

/// The parts of the site, as this program starts them.
#[derive(Debug, Subcommand)]
enum Role {
    /// Accepts requests and answers for them
    #[command(hide = true)]
    Web { nats: String, listen: String },
    /// Runs requests
    #[command(hide = true)]
    Worker { nats: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let ended = match &options.role {
        None => show(&options).await,
        Some(Role::Web { nats, listen }) => process::web(nats, listen).await,
        Some(Role::Worker { nats }) => process::worker(nats).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn show(options: &Options) -> Result<(), BoxError> {
    println!("Three nats-servers, as one cluster …");
    let Some(servers) = Servers::start(3).await else {
        return Err("nats-server is not installed".into());
    };
    println!("Two web processes and two workers …");
    let mut site = Site::start(servers)?;
    let client = Client::new(site.addresses());
    client.wait_until_served().await;
    println!(
        "{} requests over {} s, while things are killed:\n",
        options.requests, options.seconds
    );
    let done = CancellationToken::new();
    let submitting = async {
        let pace = Duration::from_secs(options.seconds) / options.requests.max(1) as u32;
        let summary = client.submit(options.requests, pace).await;
        done.cancel();
        summary
    };
    let (summary, ()) = tokio::join!(submitting, killer::kill(&mut site, &done));
    println!("\n{summary}");
    match summary.is_whole() {
        true => {
            println!("\nNothing that was accepted was lost, whatever was killed.");
            Ok(())
        }
        false => Err("not every accepted request has its result".into()),
    }
}
