//! Accepts while a hundred thousand jobs expire.

use std::time::Duration;

use http::Method;

use crate::{
    accept,
    load::{self, Scratch, store},
    open::fill,
};

const JOBS: u32 = 100_000;
const IN_FLIGHT: usize = 32;
const ROUNDS: usize = 5;

pub(crate) async fn print(scratch: &Scratch) {
    println!("\n| accepts, 32 in flight | per second | p50 ms | p99 ms | p99.9 ms | p99, ratio |");
    println!("|---|---|---|---|---|---|");
    for _ in 0..ROUNDS {
        let mut quiet = 0.0;
        for (name, expires_in) in [("quiet", 3600), ("while 100,000 jobs expire", 0)] {
            let path = scratch.file();
            drop(store(path.clone()).await);
            fill(&path, JOBS, Duration::from_secs(expires_in));
            let store = store(path).await;
            let jobs = load::jobs(store);
            let times = accept::measure(&jobs, IN_FLIGHT, &Method::PUT, false).await;
            let p99 = times.millis(0.99);
            if expires_in > 0 {
                quiet = p99;
            }
            println!("| {name} | {} | {:.2} |", times.cells(), p99 / quiet);
        }
    }
}
