//! Tests what happens to the job when the response future is dropped.

use std::{pin::pin, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower_accepted::follow::FollowAcceptedLayer;

use crate::support::*;

/// A server with a job that never ends. It answers the cancel request after `delay`.
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
async fn dropped_future_leaves_its_job_by_default() {
    let (server, log) = endless(Duration::ZERO);
    let _ = timeout(seconds(60), post(server)).await;
    sleep(seconds(60)).await;
    assert_eq!(deletions(&log), 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_future_cancels_its_job_once_if_enabled() {
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
async fn cancel_request_is_given_up_after_its_timeout() {
    let (server, log) = endless(seconds(1_000_000));
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let _ = timeout(seconds(1), follow(&layer, server, request("POST", REPORTS))).await;
    let begun = Instant::now();
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(
        metrics.num_alive_tasks(),
        1,
        "the cancel request is in flight"
    );
    while metrics.num_alive_tasks() > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(deletions(&log), 1);
}

#[tokio::test(start_paused = true)]
async fn ended_or_abandoned_job_is_not_canceled() {
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
async fn moved_monitor_is_canceled_at_its_new_uri() {
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
fn future_can_be_dropped_without_a_runtime() {
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
