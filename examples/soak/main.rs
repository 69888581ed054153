//! A long mixed load on a real server, which checks every response.
//!
//! ```text
//! cargo run --release --example soak                     # ten minutes
//! cargo run --example soak -- --requests 500 --seed 7    # a fixed number of exchanges
//! ```
//!
//! Clients in the same process submit requests over HTTP/1.1 and HTTP/2. They hang up, read slowly,
//! repeat keys, and cancel and delete jobs. The content of a response is a function of its request,
//! so each byte is verified. The exchanges are a function of the seed.

mod client;
mod exchange;
mod open;
mod server;
mod steps;
mod tally;
mod usage;
mod work;

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tower_accepted::{Filter, Jobs, Status};

use crate::{
    exchange::Exchanges,
    server::{JOB_TIMEOUT, Server},
    tally::Tally,
    usage::Usage,
};

/// The number of clients that submit at a time.
const CLIENTS: usize = 24;

/// The time that jobs and connections have to end after the last exchange.
const SETTLE_TIME: Duration = Duration::from_secs(20);

/// Runs a long mixed load on a server, and checks every response
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// The duration, in minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,

    /// Ends after this number of exchanges
    #[arg(long)]
    requests: Option<u64>,

    /// The seed of all exchanges
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let before = Usage::now();
    let tally = Arc::new(Tally::default());
    let server = match Server::start(tally.clone()).await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("soak: failed to start server: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let exchanges = Exchanges::new(server.address, arguments.seed, tally.clone());
    submit(&arguments, exchanges, started).await;
    let seconds = started.elapsed().as_secs_f64();

    let unfinished = unfinished(server.jobs.clone()).await;
    tally.stuck.add(unfinished);
    server.stop().await;
    let after = settled(&before).await;
    println!(
        "{} exchanges in {seconds:.0} s, seed {}",
        tally.exchanges.get(),
        arguments.seed
    );
    println!("{tally}");
    println!("{}", before.until(&after));
    if tally.is_clean() && before.is_restored_by(&after) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs exchanges until the time or their number is over. Prints a line every ten seconds.
async fn submit(arguments: &Arguments, exchanges: Exchanges, started: Instant) {
    let end = started + Duration::from_secs_f64(arguments.minutes * 60.0);
    let limit = arguments.requests.unwrap_or(u64::MAX);
    let tally = exchanges.tally.clone();
    let exchanges = Arc::new(exchanges);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let exchanges = exchanges.clone();
        clients
            .spawn(async move { while Instant::now() < end && exchanges.run_next(limit).await {} });
    }
    drop(exchanges);
    let mut lines = interval(Duration::from_secs(10));
    lines.tick().await;
    loop {
        tokio::select! {
            client = clients.join_next() => match client {
                Some(Ok(())) => {}
                Some(Err(error)) => tally.wrong(format_args!("a client failed: {error}")),
                None => break,
            },
            _ = lines.tick() => {
                let seconds = started.elapsed().as_secs();
                println!("{seconds:>5} s  {}, {}", tally.line(), Usage::now());
            }
        }
    }
}

/// Returns the number of jobs that have not ended, although their time is over.
async fn unfinished(jobs: Jobs) -> u64 {
    let all_ended = async {
        while jobs.unfinished() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(JOB_TIMEOUT + SETTLE_TIME, all_ended).await;
    let mut unfinished = jobs.unfinished();
    for status in [Status::Queued, Status::Running] {
        // The store in memory does not fail.
        let Ok(page) = jobs.list(&Filter::new().status(status)).await;
        unfinished = unfinished.max(page.jobs.len());
    }
    unfinished as u64
}

/// Waits until tasks and descriptors are as before, and returns the usage then.
async fn settled(before: &Usage) -> Usage {
    let deadline = Instant::now() + SETTLE_TIME;
    loop {
        let now = Usage::now();
        if before.is_restored_by(&now) || Instant::now() > deadline {
            return now;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
