//! Tests servers of FHIR's asynchronous pattern: bulk export, and its later version with redirects.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_accepted::follow::{FollowAcceptedLayer, Reason};

use crate::support::*;

const EXPORT: &str = "https://a.example/fhir/$export";
const POLL: &str = "https://a.example/poll/1";

fn kick_off() -> http::Request<Body> {
    let mut request = request("GET", EXPORT);
    let headers = request.headers_mut();
    headers.insert("prefer", "respond-async".parse().expect("a value"));
    headers.insert("accept", "application/fhir+json".parse().expect("a value"));
    headers.insert("authorization", "Bearer token".parse().expect("a value"));
    request
}

/// A server whose export takes five minutes. It answers early polls with a 429.
fn server(end: fn() -> Reply) -> (Server, Log) {
    let begun = Instant::now();
    serve(move |seen| {
        assert_eq!(seen.header("authorization"), Some("Bearer token"));
        match seen.line().as_str() {
            "GET /fhir/$export" => reply(202).with("content-location", POLL),
            "GET /poll/1" => match begun.elapsed().as_secs() {
                0..60 => reply(202)
                    .with("x-progress", "in progress")
                    .with("retry-after", "60"),
                60..120 => reply(429).with("retry-after", "120").json(json!({
                    "resourceType": "OperationOutcome",
                })),
                120..300 => reply(202)
                    .with("x-progress", "75%")
                    .with("retry-after", "90"),
                _ => end(),
            },
            line => panic!("{line}"),
        }
    })
}

fn outcome() -> Value {
    json!({ "resourceType": "OperationOutcome", "status": "failed", "issue": [] })
}

#[tokio::test(start_paused = true)]
async fn export_returns_its_manifest() {
    let (server, log) = server(|| {
        let manifest = json!({ "transactionTime": "2026-11-23T00:00:00Z", "output": [] });
        reply(200)
            .with("expires", "Tue, 24 Nov 2026 00:00:00 GMT")
            .json(manifest)
    });
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, kick_off())
        .await
        .expect("a response");
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["output"], json!([]));
    assert!(answer.header("expires").is_some());
    let poll = log.last();
    assert_eq!(poll.header("prefer"), None, "a poll must not ask for a 202");
    assert!(
        poll.header("accept")
            .is_some_and(|accept| accept.starts_with("application/json"))
    );
}

#[tokio::test(start_paused = true)]
async fn failed_export_returns_its_outcome() {
    let (server, _) = server(|| {
        reply(500)
            .with("content-type", "application/fhir+json")
            .body(outcome().to_string())
    });
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, kick_off())
        .await
        .expect("a response");
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json(), outcome());
}

#[tokio::test(start_paused = true)]
async fn first_response_with_a_resource_is_the_result() {
    let task = json!({ "resourceType": "Task", "status": "failed" });
    let (server, _) = script([
        reply(202).with("content-location", POLL),
        reply(200).json(task.clone()),
    ]);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, kick_off())
        .await
        .expect("a response");
    assert_eq!(answer.json(), task);
}

#[tokio::test(start_paused = true)]
async fn redirected_result_has_the_requested_format() {
    let (server, log) = script([
        reply(202).with("content-location", POLL),
        reply(202)
            .with("x-progress", "50% of 2")
            .with("retry-after", "7"),
        reply(303)
            .with("location", "../fhir/results/1")
            .with("retry-after", "3"),
        reply(404).json(outcome()),
    ]);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, kick_off())
        .await
        .expect("a response");
    assert_eq!(
        answer.status,
        StatusCode::NOT_FOUND,
        "the status of a synchronous call"
    );
    assert_eq!(answer.json(), outcome());
    let fetch = log.last();
    assert_eq!(fetch.line(), "GET /fhir/results/1");
    assert_eq!(fetch.header("accept"), Some("application/fhir+json"));
    assert_eq!(log.gaps()[1..], [seconds(7), seconds(3)]);
}

#[tokio::test(start_paused = true)]
async fn cancel_goes_to_the_content_location() {
    let (server, log) = serve(|seen| match seen.method.as_str() {
        "DELETE" => reply(202),
        _ => reply(202)
            .with("content-location", POLL)
            .with("retry-after", "120"),
    });
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let _ = tokio::time::timeout(seconds(60), follow(&layer, server, kick_off())).await;
    while log.all().len() < 2 {
        tokio::task::yield_now().await;
    }
    let cancel = log.last();
    assert_eq!(
        format!("{} {}", cancel.method, cancel.uri),
        format!("DELETE {POLL}")
    );
    assert_eq!(cancel.header("authorization"), Some("Bearer token"));
}

#[tokio::test(start_paused = true)]
async fn timed_out_export_is_left_running() {
    let (server, log) = server(|| reply(200));
    let layer = FollowAcceptedLayer::new().timeout(seconds(250));
    let begun = Instant::now();
    let error = failure(follow(&layer, server, kick_off()).await);
    assert!(matches!(error.reason(), Reason::TimedOut(limit) if *limit == seconds(250)));
    assert_eq!(begun.elapsed(), seconds(250));
    assert_eq!(error.monitor(), POLL);
    assert!(log.all().iter().all(|seen| seen.method == "GET"));
}
