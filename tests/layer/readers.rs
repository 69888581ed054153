//! Many readers of one output, and slow ones.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_accepted::{
    Jobs,
    store::{Budget, MemoryStore},
};

use crate::{
    memory::{MIB, assert_within, status_bytes},
    producing::*,
    support::*,
};

#[tokio::test(start_paused = true)]
async fn thousand_readers_wake_in_one_pass() {
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let producer = script.respond(text());
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    producer.send("0");
    let mut readers = Vec::new();
    for _ in 0..1_000 {
        let mut reader = open(&service, get(&path)).await;
        assert_eq!(reader.next(1).await, "0");
        readers.push(tokio::spawn(async move {
            reader.next(1).await;
            reader
        }));
    }
    tokio::task::yield_now().await;
    let woken = Instant::now();
    producer.send("1");
    for reader in &mut readers {
        reader.await.unwrap();
    }
    assert_eq!(woken.elapsed(), Duration::ZERO, "no reader polls");
}

#[tokio::test(start_paused = true)]
async fn reader_that_stalls_is_cut_and_slows_nobody() {
    let script = Script::default();
    let jobs = Jobs::builder()
        .max_result(16 << 20)
        .replay_timeout(Duration::from_secs(60))
        .build();
    let service = jobs.layer().layer(script.service());
    let producer = script.respond(text());
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    producer.send("0");
    let mut stalled = open(&service, get(&path)).await;
    assert_eq!(stalled.next(1).await, "0");
    for _ in 0..100 {
        producer.send(vec![b'x'; 50_000]);
    }
    drop(producer);
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    let mut slow = open(&service, get(&path)).await;
    slow.next(1).await;
    sleep(Duration::from_secs(61)).await;
    let (_, is_broken) = slow.rest().await;
    assert!(is_broken, "a reader that reads nothing is cut");
}

#[test]
fn ten_thousand_readers_share_one_copy() {
    const READERS: usize = 10_000;
    const MAX_READER_BYTES: usize = 2 * 1024;
    assert_within(
        "readers::ten_thousand_readers_share_one_copy",
        128 * MIB,
        async {
            let budget = Budget::new(400 * MIB);
            let store = MemoryStore::new(Duration::from_secs(3600), budget.clone());
            let jobs = Jobs::builder().max_result(64 * MIB).store(store).build();
            let script = Script::default();
            let service = jobs.layer().layer(script.service());
            let producer = script.respond(Response::builder());
            let accepted = send(&service, post("/")).await;
            let path = format!("{}/stream", accepted.location());
            let frame = || vec![b'x'; 65_536];
            producer.send(frame());
            let mut readers = Vec::with_capacity(READERS);
            let read = async |body: &mut _| {
                let frame = BodyExt::frame(body).await;
                assert!(frame.unwrap().unwrap().is_data());
            };
            // Half of them begin before the end.
            for _ in 0..READERS / 2 {
                let response = service.clone().oneshot(get(&path)).await.unwrap();
                let mut body = response.into_body();
                read(&mut body).await;
                readers.push(body);
            }
            for _ in 1..1_024 {
                producer.send(frame());
            }
            drop(producer);
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
            assert!(budget.used() <= 64 * MIB + 4_096, "{}", budget.used());
            let before = status_bytes("VmRSS");
            for _ in 0..READERS / 2 {
                let response = service.clone().oneshot(get(&path)).await.unwrap();
                readers.push(response.into_body());
            }
            for body in &mut readers {
                for _ in 0..3 {
                    read(body).await;
                }
            }
            // The growth of the first half counts for the second half too.
            let per_reader = (status_bytes("VmHWM") - before) / (READERS / 2);
            assert!(per_reader <= MAX_READER_BYTES, "{per_reader}");
            assert!(budget.used() <= 64 * MIB + 4_096, "{}", budget.used());
        },
    );
}
