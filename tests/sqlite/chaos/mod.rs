//! Chaos: jobs go through two processes on one file, which are killed every second or two.
//!
//! Each process accepts requests over HTTP and runs a worker. At times both are killed at once, or
//! one is killed again while it opens the file. A journal outside of the store shows which calls
//! began and ended. `ACCEPTED_CHAOS_JOBS` sets the number of requests (default: 300).
//! `ACCEPTED_CHAOS_SEED` sets the seed of the faults and of the clients:
//!
//! `ACCEPTED_CHAOS_JOBS=10000 cargo test --all-features --test sqlite chaos -- --nocapture`

mod audit;
mod client;
mod faults;
mod journal;
mod report;
mod server;
#[path = "../../suites/chaos.rs"]
pub(crate) mod shared;
mod submission;
mod system;
mod task;

use std::time::Duration;

use tower_accepted::store::sqlite::SqliteOptions;

use self::{shared::number, system::System};

/// The number of processes that share the file.
const PROCESSES: usize = 2;

/// The number of jobs that each worker runs at a time.
const WORKER_CONCURRENCY: usize = 16;

const DEFAULT_JOBS: u64 = 300;

const DEFAULT_SEED: u64 = 17;

fn options() -> SqliteOptions {
    SqliteOptions::new()
        .retain(Duration::from_secs(3600))
        .retry_delay(Duration::from_millis(20))
        // So many that no job is lost for its attempts.
        .attempts(1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_drop_nor_repeat_a_job() {
    let jobs = number("ACCEPTED_CHAOS_JOBS").unwrap_or(DEFAULT_JOBS);
    let seed = number("ACCEPTED_CHAOS_SEED").unwrap_or(DEFAULT_SEED);
    println!("replay with ACCEPTED_CHAOS_SEED={seed}");
    let mut system = System::start(seed);
    let report = system.run(jobs as usize).await;
    println!("{}", report.summary());
    report.check();
    println!("{}", system.audit(&report).await);
}
