//! Chaos: jobs go through two replicas and three workers while random faults strike.
//!
//! A fault kills a worker, kills the leader of a stream, or cuts a replica off.
//! `ACCEPTED_CHAOS_JOBS` sets the number of jobs (default: 1,000).
//! `ACCEPTED_CHAOS_SEED` repeats the faults of a run:
//!
//! `ACCEPTED_CHAOS_JOBS=10000 cargo test --all-features --test nats chaos -- --nocapture`

mod client;
mod faults;
mod report;
#[path = "../../suites/chaos.rs"]
pub(crate) mod shared;
mod system;
mod task;
mod worker;

use std::time::Duration;

use async_nats::ConnectOptions;
use tower_accepted::store::nats::NatsOptions;

use self::{shared::number, system::System, task::INLINE_BYTES};
use crate::{
    server::Servers,
    site::or_skip,
    streams::{BUCKET, QUEUE},
};

/// The number of jobs that each worker runs at a time.
const WORKER_CONCURRENCY: usize = 16;

/// The streams that every job depends on.
const STREAMS: [&str; 2] = [QUEUE, BUCKET];

fn options() -> NatsOptions {
    NatsOptions::new()
        .replicas(3)
        .lease(Duration::from_secs(3))
        .ack_timeout(Duration::from_secs(2))
        .retain(Duration::from_secs(3600))
        // Without a limit, so that no job may be lost for its attempts.
        .attempts(1_000)
        .inline(INLINE_BYTES)
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_neither_drop_nor_repeat_a_job() {
    let jobs = number("ACCEPTED_CHAOS_JOBS").unwrap_or(1_000);
    let seed = number("ACCEPTED_CHAOS_SEED").unwrap_or_else(rand::random);
    println!("replay with ACCEPTED_CHAOS_SEED={seed}");
    let servers = or_skip!(Servers::start(3));
    let mut system = System::start(servers, seed).await;
    let report = system.run(jobs as usize).await;
    println!("{}", system.losses());
    let journal = system.journal();
    report.check(&journal);
    println!("{}", report.summary(&journal));
}

async fn connect(url: &str) -> async_nats::Client {
    let urls: Vec<String> = url.split(',').map(str::to_owned).collect();
    ConnectOptions::new()
        .retry_on_initial_connect()
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::from_millis(100))
        .connect(urls)
        .await
        .expect("the client retries")
}
