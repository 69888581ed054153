//! What a dropped future leaves behind.

use std::{pin::pin, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower_accepted::follow::FollowAcceptedLayer;

use crate::support::*;

/// A server of a job that never ends, and answers the wish to cancel after `delay`.
fn endless(delay: Duration) -> (Server, Log) {
    serve(move |seen| match seen.method.as_str() {
        "POST" => reply(202).with("operation-location", "/jobs/1"),
        "DELETE" => reply(204).after(delay),
        _ => document(json!({ "status": "running" })),
    })
}

fn deletions(log: &Log) -> usize {
    let all = log.all();
    all.iter().filter(|seen| seen.method == "DELETE").count()
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_leaves_its_job_alone_by_default() {
    let (server, log) = endless(Duration::ZERO);
    let _ = timeout(seconds(60), post(server)).await;
    sleep(seconds(60)).await;
    assert_eq!(deletions(&log), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_cancels_its_job_once_where_that_is_wanted() {
    for patience in [Duration::from_millis(1), seconds(60)] {
        let (server, log) = endless(Duration::ZERO);
        let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
        let mut request = request("POST", REPORTS);
        let token = "Bearer token".parse().expect("a value");
        request.headers_mut().insert("authorization", token);
        let _ = timeout(patience, follow(&layer, server, request)).await;
        sleep(seconds(60)).await;
        assert_eq!(deletions(&log), 1);
        let cancel = log.last();
        assert_eq!(cancel.line(), "DELETE /jobs/1");
        assert_eq!(cancel.header("authorization"), Some("Bearer token"));
        assert!(cancel.body.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_waits_for_nothing_and_the_wish_is_given_up() {
    let (server, log) = endless(seconds(1_000_000));
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let _ = timeout(seconds(1), follow(&layer, server, request("POST", REPORTS))).await;
    let begun = Instant::now();
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1, "the wish is on its way");
    while metrics.num_alive_tasks() > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(deletions(&log), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_canceled_that_has_ended_or_was_given_up() {
    let layer = FollowAcceptedLayer::new()
        .cancel_on_drop(seconds(5))
        .max_polls(3);
    let (server, log) = endless(Duration::ZERO);
    failure(follow(&layer, server, request("POST", REPORTS)).await);
    sleep(seconds(60)).await;
    assert_eq!(deletions(&log), 0);

    let (server, log) = script([
        reply(202).with("operation-location", "/jobs/1"),
        document(json!({ "status": "succeeded" })),
    ]);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    sleep(seconds(60)).await;
    assert_eq!(deletions(&log), 0);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_moved_is_canceled_where_it_is() {
    let (server, log) = serve(|seen| match seen.line().as_str() {
        "POST /reports" => reply(202).with("location", "/jobs/1"),
        "GET /jobs/1" => reply(202).with("location", "/jobs/2"),
        _ => reply(202)
            .with("location", "/jobs/2")
            .with("retry-after", "100"),
    });
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let _ = timeout(
        seconds(60),
        follow(&layer, server, request("POST", REPORTS)),
    )
    .await;
    sleep(seconds(5)).await;
    assert_eq!(log.last().line(), "DELETE /jobs/2");
}

#[test]
fn without_a_runtime_a_future_can_be_dropped_all_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (server, log) = endless(Duration::ZERO);
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let mut following = Box::pin(follow(&layer, server, request("POST", REPORTS)));
    runtime.block_on(async {
        let _ = timeout(seconds(1), pin!(&mut following)).await;
    });
    drop(following);
    drop(runtime);
    assert_eq!(deletions(&log), 0);
}
