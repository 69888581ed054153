//! Tests services that follow Azure's REST API guidelines for long-running operations, or the
//! asynchronous contract of its resource manager.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_accepted::follow::{FollowAcceptedLayer, Reason};

use crate::support::*;

const WIDGET: &str = "https://a.example/widgets/7";
const OPERATION: &str = "https://a.example/operations/1?api-version=1";

/// A service whose operation takes 25 s and then has this status document. `accepted` completes
/// the 202.
fn service(end: Value, accepted: fn(Reply) -> Reply) -> (Server, Log) {
    let begun = Instant::now();
    serve(move |seen| match seen.line().as_str() {
        "GET /widgets/7" => reply(200)
            .with("etag", "\"7\"")
            .json(json!({ "name": "seven" })),
        "GET /results/1" => reply(200).json(json!({ "moved": true })),
        "GET /operations/1" => match begun.elapsed().as_secs() {
            0..10 => {
                document(json!({ "id": "1", "status": "NotStarted" })).with("retry-after", "10")
            }
            // A status that only this service knows.
            10..25 => document(json!({ "id": "1", "status": "MountingDrives" })),
            _ => document(end.clone()),
        },
        _ => accepted(reply(202).with("retry-after", "5")),
    })
}

fn operation_location(reply: Reply) -> Reply {
    reply
        .with("operation-location", OPERATION)
        .json(json!({ "id": "1", "status": "NotStarted" }))
}

fn asynchronous_operation(reply: Reply) -> Reply {
    reply
        .with("azure-asyncoperation", OPERATION)
        .with("location", "https://a.example/results/1")
}

#[tokio::test(start_paused = true)]
async fn action_result_is_in_the_status_document() {
    let end = json!({ "id": "1", "status": "Succeeded", "result": { "sum": 7 } });
    let (server, log) = service(end, operation_location);
    let request = request("POST", "https://a.example/widgets/7:sum");
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request).await.expect("a response");
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["result"]["sum"], 7);
    assert_eq!(log.lines()[1], format!("GET {OPERATION}"));
}

#[tokio::test(start_paused = true)]
async fn result_is_at_the_resource_location() {
    let end = json!({ "status": "succeeded", "resourceLocation": "https://a.example/widgets/7" });
    let (server, log) = service(end, operation_location);
    let request = request("POST", "https://a.example/widgets");
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request).await.expect("a response");
    assert_eq!(answer.json()["name"], "seven");
    assert_eq!(
        log.lines().last().map(String::as_str),
        Some("GET https://a.example/widgets/7")
    );
}

#[tokio::test(start_paused = true)]
async fn put_and_patch_result_is_the_original_resource() {
    for method in ["PUT", "PATCH"] {
        let end = json!({ "id": "1", "status": "Succeeded" });
        let (server, log) = service(end, operation_location);
        let layer = FollowAcceptedLayer::new();
        let answer = follow(&layer, server, request(method, WIDGET)).await;
        let answer = answer.expect("a response");
        assert_eq!(answer.json()["name"], "seven");
        assert_eq!(answer.header("etag"), Some("\"7\""));
        let last = log.last();
        assert_eq!(
            (last.line().as_str(), last.body.len()),
            ("GET /widgets/7", 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn post_and_patch_result_is_at_the_location() {
    for method in ["POST", "PATCH"] {
        let (server, log) = service(json!({ "status": "Succeeded" }), asynchronous_operation);
        let layer = FollowAcceptedLayer::new();
        let answer = follow(&layer, server, request(method, WIDGET)).await;
        assert_eq!(answer.expect("a response").json()["moved"], true);
        assert_eq!(log.last().line(), "GET /results/1");
    }
}

#[tokio::test(start_paused = true)]
async fn location_of_the_monitor_is_not_the_result() {
    let (server, log) = script([
        reply(202)
            .with("operation-location", OPERATION)
            .with("location", OPERATION),
        document(json!({ "status": "Succeeded", "result": 7 })),
    ]);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request("POST", WIDGET))
        .await
        .expect("a response");
    assert_eq!(answer.json()["result"], 7);
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn deleted_resource_is_not_requested() {
    let (server, log) = service(json!({ "status": "Succeeded" }), asynchronous_operation);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request("DELETE", WIDGET)).await;
    assert_eq!(answer.expect("a response").json()["status"], "Succeeded");
    assert_eq!(log.last().line(), "GET /operations/1");
}

#[tokio::test(start_paused = true)]
async fn failed_or_canceled_operation_is_an_error() {
    let error = json!({ "code": "BadArgument", "message": "No such user." });
    for (status, canceled) in [("Failed", false), ("FAILED", false), ("Canceled", true)] {
        let end = json!({ "status": status, "error": error });
        let (server, _) = service(end, operation_location);
        let layer = FollowAcceptedLayer::new();
        let error = failure(follow(&layer, server, request("PUT", WIDGET)).await);
        assert_eq!(
            matches!(error.reason(), Reason::Canceled),
            canceled,
            "{error:?}"
        );
        assert_eq!(
            matches!(error.reason(), Reason::Failed),
            !canceled,
            "{error:?}"
        );
        let document = error.document().expect("a document");
        assert_eq!(document.error_code(), Some("BadArgument"));
        assert_eq!(document.error_message(), Some("No such user."));
        assert_eq!(error.monitor(), OPERATION);
    }
}

#[tokio::test(start_paused = true)]
async fn monitor_may_move_between_responses() {
    let (server, log) = script([
        reply(202).with("operation-location", "/operations/1"),
        document(json!({ "status": "Running" })).with("operation-location", "/operations/1?x=2"),
        document(json!({ "status": "Succeeded" })),
    ]);
    post(server).await.expect("a response");
    assert_eq!(
        log.lines()[1..],
        [
            "GET http://a.example/operations/1",
            "GET http://a.example/operations/1?x=2",
        ]
    );
}

/// A service of the resource manager with `Location` alone: 202 until the operation ends, then the
/// response that a synchronous call would have had.
fn resource_manager(done_after: u64) -> (Server, Log) {
    let begun = Instant::now();
    serve(move |seen| match seen.line().as_str() {
        "GET /operationResults/1" if begun.elapsed() >= seconds(done_after) => reply(204),
        _ => reply(202)
            .with("location", "https://a.example/operationResults/1")
            .with("retry-after", "15"),
    })
}

#[tokio::test(start_paused = true)]
async fn location_that_answers_202_is_a_monitor() {
    let (server, log) = resource_manager(30);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request("DELETE", WIDGET)).await;
    assert_eq!(answer.expect("a response").status, StatusCode::NO_CONTENT);
    assert_eq!(log.gaps(), [seconds(15), seconds(15)]);
}

#[tokio::test(start_paused = true)]
async fn trusted_location_may_end_at_once() {
    let (server, _) = resource_manager(1);
    let layer = FollowAcceptedLayer::new().location_is_monitor(true);
    let answer = follow(&layer, server, request("DELETE", WIDGET)).await;
    assert_eq!(answer.expect("a response").status, StatusCode::NO_CONTENT);
}
