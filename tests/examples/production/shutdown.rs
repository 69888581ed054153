//! Shutdowns of the example `production` that must not lose a result.
//!
//! `ACCEPTED_SHUTDOWNS` sets their number (default: 2). Shutdown `n` has the seed `n`. The stated
//! size:
//!
//! `ACCEPTED_SHUTDOWNS=20 cargo test --test examples shutdown -- --nocapture`

use std::{env, time::Duration};

use futures_util::{StreamExt, stream};
use http::StatusCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{UserClient, csv};
use crate::{
    client::{Answer, open},
    program::Program,
};

const DEFAULT_SHUTDOWNS: u64 = 2;

/// The number of shutdowns at a time.
const CONCURRENCY: usize = 2;

const JOBS: usize = 100;

const PAGE_MS: u64 = 50;

const MAX_PAGES: u32 = 60;

/// The results of one shutdown.
#[derive(Debug, Default)]
struct Tally {
    before_signal: usize,
    after_signal: usize,
    lost: usize,
}

/// Polls as `Retry-After` says, and returns the result with the time at which it arrived.
///
/// Each request has a connection of its own. Nothing is repeated, so an error loses the result.
async fn fetch(client: UserClient, accepted: Answer, is_direct: bool) -> (Answer, Instant) {
    let job = accepted.job();
    let result = format!("{job}/result");
    let mut path = if is_direct { &result } else { &job };
    let mut answer = accepted;
    loop {
        match answer.header("retry-after") {
            Some(seconds) => {
                let seconds = seconds.parse().expect("seconds");
                sleep(Duration::from_secs(seconds)).await;
            }
            None if path == &result => return (answer, Instant::now()),
            None => path = &result,
        }
        answer = client.call("GET", path).await;
    }
}

/// Submits slow jobs, sends SIGTERM at a random moment, and counts the results.
async fn shut_down(seed: u64) -> Tally {
    let mut random = StdRng::seed_from_u64(seed);
    let page_ms = PAGE_MS.to_string();
    let arguments = ["127.0.0.1:0", "--page-ms", &page_ms];
    let mut server = Program::start("production", &arguments).await;
    let mut clients = JoinSet::new();
    for number in 0..JOBS {
        let name = ["alice", "bob"][number % 2];
        let client = UserClient::new(&server, name);
        let pages = random.random_range(1..=MAX_PAGES);
        let accepted = client.report(&format!("pages={pages}")).await;
        clients.spawn(async move {
            let (result, at) = fetch(client, accepted, number % 4 < 2).await;
            assert_eq!(result.status, StatusCode::OK, "{result:?}");
            assert_eq!(result.body, csv(pages));
            at
        });
    }
    // The longest job ends about then. Meanwhile the log is read, so that its pipe never fills.
    let longest = PAGE_MS * u64::from(MAX_PAGES);
    let moment = Duration::from_millis(random.random_range(0..longest));
    let early = timeout(moment, server.logged("shutting down")).await;
    assert!(early.is_err(), "it shuts down before the signal");

    let signaled = Instant::now();
    server.signal("TERM").await;
    let mut tally = Tally::default();
    let count = async {
        while let Some(client) = clients.join_next().await {
            match client {
                Ok(at) if at < signaled => tally.before_signal += 1,
                Ok(_) => tally.after_signal += 1,
                Err(_) => tally.lost += 1,
            }
        }
    };
    tokio::join!(count, server.logged("drained: 0 jobs were cut"));
    assert_eq!(server.ended().await.code(), Some(0));
    let took = signaled.elapsed();
    println!("seed {seed}: SIGTERM after {moment:?}, ended {took:?} later: {tally:?}");
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_loses_no_result() {
    let shutdowns = match env::var("ACCEPTED_SHUTDOWNS") {
        Ok(number) => number.parse().expect("a number"),
        Err(_) => DEFAULT_SHUTDOWNS,
    };
    let tallies = stream::iter(0..shutdowns).map(shut_down);
    let tallies: Vec<Tally> = tallies.buffer_unordered(CONCURRENCY).collect().await;
    let sum = |count: fn(&Tally) -> usize| tallies.iter().map(count).sum::<usize>();
    let (before, after) = (
        sum(|tally| tally.before_signal),
        sum(|tally| tally.after_signal),
    );
    println!("{before} results before a signal, {after} after it");
    assert_eq!(sum(|tally| tally.lost), 0, "{tallies:?}");
    assert_eq!(before + after, tallies.len() * JOBS);
    assert_ne!(after, 0, "no client had to come back");
}

#[tokio::test]
async fn stalled_client_does_not_keep_the_process_alive() {
    let arguments = ["127.0.0.1:0", "--timeout-secs", "1"];
    let mut server = Program::start("production", &arguments).await;
    let _stalled = open(server.address, b"GET / HTTP/1.1\r\nHos").await;
    server.signal("TERM").await;
    server.logged("drained: 0 jobs were cut").await;
    assert_eq!(server.ended().await.code(), Some(0));
}
