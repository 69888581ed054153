//! A call waits for the readers of its output if the layer limits how far it may be ahead.

use std::time::Duration;

use futures_util::StreamExt;
use http::Response;
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{Backpressure, Jobs, When};

use crate::{
    producing::open,
    submitting::{chunks, monitor},
    support::*,
};

#[tokio::test(start_paused = true)]
async fn call_stays_near_its_fastest_reader() {
    let read = Counter::default();
    let jobs = Jobs::new();
    let layer = jobs.layer().when(When::Streamed);
    let layer = layer.backpressure(Backpressure::Ahead(5_000));
    let service = layer.layer(inner({
        let read = read.clone();
        move |_| {
            let read = read.clone();
            async move {
                let frames = futures_util::stream::iter(chunks(100)).map(move |frame| {
                    read.up();
                    Ok::<_, Failed>(frame)
                });
                Ok(Response::new(Body::from_stream(frames)))
            }
        }
    }));
    let mut response = open(&service, post("/")).await;
    let monitor = monitor(&response);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(read.count(), 5);
    response.next(1_000).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(read.count(), 6);
    // Another reader is faster.
    let mut faster = open(&service, get(&format!("{monitor}/stream"))).await;
    let got = faster.next(4_000).await.len();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(read.count(), 5 + got / 1_000);
    // Both stall, and the call goes on without them.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(read.count(), 100);
    let (rest, is_broken) = response.rest().await;
    assert!(!is_broken && chunks(100).concat().ends_with(&rest));
}

#[tokio::test(start_paused = true)]
async fn reader_that_has_left_does_not_set_the_pace() {
    let jobs = Jobs::new();
    let layer = jobs.layer().when(When::Streamed);
    let layer = layer.backpressure(Backpressure::Ahead(2_000));
    let read = Counter::default();
    let service = layer.layer(inner({
        let read = read.clone();
        move |_| {
            let read = read.clone();
            async move {
                let frames = futures_util::stream::iter(chunks(100)).map(move |frame| {
                    read.up();
                    Ok::<_, Failed>(frame)
                });
                Ok(Response::new(Body::from_stream(frames)))
            }
        }
    }));
    let mut slow = open(&service, post("/")).await;
    let mut fast = open(&service, get(&format!("{}/stream", monitor(&slow)))).await;
    let mut got = 0;
    while got < 30_000 {
        got += fast.next(1_000).await.len();
        sleep(Duration::from_millis(1)).await;
    }
    let produced = read.count();
    assert_eq!(produced, got / 1_000 + 2);
    drop(fast);
    // The slow reader goes on, so the call keeps waiting for it.
    for _ in 0..8 {
        slow.next(1_000).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(read.count(), produced);
    let whole = chunks(100).concat();
    let (rest, is_broken) = slow.rest().await;
    assert!(!is_broken && whole.ends_with(&rest));
}
