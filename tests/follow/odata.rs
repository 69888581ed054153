//! Tests a service of OData 4.01 (§11.6).

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tower_accepted::follow::FollowAcceptedLayer;

use crate::support::*;

/// A service whose request takes 5 s. Each pending response names another monitor.
///
/// It wraps the result if the client accepts `application/http`, as clients of OData 4.0 may.
fn service(result: &'static str) -> (Server, Log) {
    let begun = Instant::now();
    serve(move |seen| {
        let age = begun.elapsed().as_secs();
        let wraps = seen
            .header("accept")
            .is_none_or(|accept| accept.contains("application/http"));
        match seen.method.as_str() {
            "POST" if seen.header("prefer") != Some("respond-async") => reply(200),
            "POST" => reply(202)
                .with("location", "monitors/0")
                .with("preference-applied", "respond-async"),
            "GET" if seen.header("prefer") == Some("respond-async") => panic!("another request"),
            "GET" if age < 5 => {
                let next = format!("http://a.example/odata/monitors/{age}");
                reply(202).with("location", &next).with("retry-after", "2")
            }
            "GET" if wraps => reply(200).with("content-type", "application/http"),
            "GET" => reply(200)
                .with("asyncresult", result)
                .with("odata-version", "4.01")
                .json(json!({ "status": "shipped" })),
            _ => reply(204),
        }
    })
}

fn order() -> http::Request<Body> {
    let mut request = request("POST", "http://a.example/odata/Orders");
    let headers = request.headers_mut();
    headers.insert("prefer", "respond-async".parse().expect("a value"));
    headers.insert("odata-maxversion", "4.0".parse().expect("a value"));
    request
}

#[tokio::test(start_paused = true)]
async fn result_is_unwrapped_and_has_its_own_status() {
    for (result, status) in [
        ("200", StatusCode::OK),
        ("201", StatusCode::CREATED),
        ("404", StatusCode::NOT_FOUND),
        ("503", StatusCode::SERVICE_UNAVAILABLE),
        // Not a final status, so that of the message counts.
        ("100", StatusCode::OK),
        ("none", StatusCode::OK),
    ] {
        let (server, log) = service(result);
        let layer = FollowAcceptedLayer::new();
        let answer = follow(&layer, server, order()).await.expect("a response");
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["status"], "shipped");
        assert_eq!(answer.header("odata-version"), Some("4.01"));
        let last = log.last();
        assert_eq!(last.header("odata-maxversion"), Some("4.0"));
        assert_eq!(
            last.header("prefer").map(|wait| wait.starts_with("wait=")),
            Some(true)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_response_may_move_the_monitor() {
    let (server, log) = service("200");
    let layer = FollowAcceptedLayer::new();
    follow(&layer, server, order()).await.expect("a response");
    let lines = log.lines();
    assert_eq!(lines[1], "GET http://a.example/odata/monitors/0");
    assert!(
        lines.len() > 3 && lines[2..].iter().any(|line| line != &lines[1]),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn dropped_request_is_canceled_at_its_monitor() {
    let (server, log) = service("200");
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let following = follow(&layer, server, order());
    let _ = tokio::time::timeout(seconds(3), following).await;
    while log.last().method != "DELETE" {
        tokio::task::yield_now().await;
    }
    assert!(log.last().uri.path().starts_with("/odata/monitors/"));
}
