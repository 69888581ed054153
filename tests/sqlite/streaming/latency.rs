//! The time from a chunk to its readers. This is no check: it prints.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::output::{open, pattern, produced};
use crate::{
    site::{Home, options, quick},
    support::{post, send},
};

const CHUNKS: usize = 500;

/// The time between two chunks.
const INTERVAL: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints latencies"]
async fn latency_of_chunks() {
    for (name, size) in [("rows", 20), ("a file", 20)] {
        let home = Home::new(options());
        let (producer, service) = produced();
        let one = home.serve(service).await;
        let other = home.serve(quick()).await;
        let location = send(&one, post("/it")).await.location().to_owned();
        let mut length = 10;
        producer.send(pattern(0, length));
        if name == "a file" {
            producer.send(pattern(0, 300_000));
            length += 300_000;
        }
        let mut readers = Vec::new();
        for site in [&one, &other] {
            let mut reader = open(site, &location, "").await;
            reader.next(length).await;
            readers.push(tokio::spawn(async move {
                let mut times = Vec::new();
                let mut read = 0;
                while read < CHUNKS * size {
                    read += reader.next(1).await.len();
                    times.push((read / size, Instant::now()));
                }
                times
            }));
        }
        let mut sent = Vec::new();
        for _ in 0..CHUNKS {
            sent.push(Instant::now());
            producer.send(pattern(0, size));
            sleep(INTERVAL).await;
        }
        for (reader, place) in readers.into_iter().zip(["in process", "across stores"]) {
            let times = reader.await.unwrap();
            let mut delays = Vec::new();
            for (chunks, at) in times {
                while delays.len() < chunks {
                    delays.push(at - sent[delays.len()]);
                }
            }
            delays.sort_unstable();
            let [p50, p99, max] = [CHUNKS / 2, CHUNKS * 99 / 100, CHUNKS - 1].map(|at| delays[at]);
            println!("{name}, {place}: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}");
        }
    }
}
