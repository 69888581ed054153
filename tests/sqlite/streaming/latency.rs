//! The time from a chunk to its readers, and of accepts beside streams. Nothing is checked: it
//! prints.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::output::{open, pattern, produced};
use crate::{
    site::{Home, layered, options, quick},
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

/// The streams that run beside accepts, and the time between two tokens of each: 20 a second.
const STREAMS: usize = 100;
const TOKEN_INTERVAL: Duration = Duration::from_millis(50);

const ACCEPTS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints latencies"]
async fn latency_of_accepts_beside_streams() {
    let home = Home::new(options());
    let jobs = home.jobs().await;
    let quick = layered(&jobs, quick());
    for streams in [0, STREAMS] {
        let mut running = Vec::new();
        for _ in 0..streams {
            let (producer, service) = produced();
            let site = layered(&jobs, service);
            let location = send(&site, post("/stream")).await.location().to_owned();
            running.push(tokio::spawn(async move {
                loop {
                    producer.send("a token of a text ");
                    sleep(TOKEN_INTERVAL).await;
                }
            }));
            running.push(tokio::spawn(async move {
                let mut reader = open(&site, &location, "").await;
                loop {
                    reader.next(1).await;
                }
            }));
        }
        let mut delays = Vec::new();
        for _ in 0..ACCEPTS {
            let begun = Instant::now();
            send(&quick, post("/it")).await.location();
            delays.push(begun.elapsed());
            sleep(INTERVAL).await;
        }
        running.iter().for_each(tokio::task::JoinHandle::abort);
        delays.sort_unstable();
        let [p50, p99, max] = [ACCEPTS / 2, ACCEPTS * 99 / 100, ACCEPTS - 1].map(|at| delays[at]);
        println!("accepts beside {streams} streams: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}");
    }
}
