//! Tests a 202 that has only a `Location`, which may or may not be a monitor.

use http::StatusCode;
use serde_json::json;
use tower_accepted::follow::{FollowAcceptedLayer, Followed, NotFollowed, Reason};

use crate::support::*;

fn accepted() -> Reply {
    reply(202)
        .with("location", "/things/1")
        .json(json!({ "ticket": 7 }))
}

#[tokio::test(start_paused = true)]
async fn non_monitor_leaves_the_202_unchanged() {
    for probe in [
        || {
            reply(200)
                .with("content-type", "text/plain")
                .body("a thing")
        },
        || reply(200).json(json!({ "name": "a thing" })),
        || reply(200).json(json!({ "name": "a thing", "status": "shipped" })),
        || reply(200).json(json!(["running"])),
        || {
            reply(200)
                .with("content-type", "text/html")
                .body(r#"{"status":"running"}"#)
        },
        || reply(204),
        || reply(304),
        || reply(401),
        || reply(404),
        || reply(500),
        || reply(303),
    ] {
        let (server, log) = script([accepted(), probe()]);
        let answer = post(server).await.expect("a response");
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        assert_eq!(answer.json()["ticket"], 7);
        assert_eq!(answer.header("location"), Some("/things/1"));
        let reason: NotFollowed = answer.extension().expect("a reason");
        let uri = "http://a.example/things/1".parse().expect("a URI");
        assert_eq!(reason, NotFollowed::NotAMonitor(uri));
        assert!(answer.extension::<Followed>().is_none());
        assert_eq!(log.all().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn monitor_lookalike_is_followed() {
    for (probe, expected) in [
        // A status document with a known status.
        (
            (|| {
                vec![
                    document(json!({ "status": "InProgress" })),
                    document(json!({ "status": "succeeded" })),
                ]
            }) as fn() -> Vec<Reply>,
            StatusCode::OK,
        ),
        (
            || {
                vec![
                    document(json!({ "status": "succeeded", "resourceLocation": "x" })),
                    reply(201),
                ]
            },
            StatusCode::CREATED,
        ),
        // Pending, then any response.
        (|| vec![reply(202), reply(404)], StatusCode::NOT_FOUND),
        (
            || vec![reply(202), document(json!({ "status": "running" }))],
            StatusCode::OK,
        ),
        // A redirect to the result, or a declared result.
        (
            || vec![reply(303).with("location", "/r"), reply(410)],
            StatusCode::GONE,
        ),
        (
            || vec![reply(200).with("asyncresult", "418")],
            StatusCode::IM_A_TEAPOT,
        ),
        (
            || vec![reply(200).with("content-type", "application/http")],
            StatusCode::OK,
        ),
        // After failures or a redirect.
        (
            || vec![reply(503), broken("reset"), reply(202), reply(204)],
            StatusCode::NO_CONTENT,
        ),
        (
            || vec![reply(307).with("location", "/m"), reply(202), reply(204)],
            StatusCode::NO_CONTENT,
        ),
    ] {
        let (server, _) = script([accepted()].into_iter().chain(probe()));
        let answer = post(server).await.expect("a response");
        assert_eq!(answer.status, expected);
        assert!(answer.extension::<Followed>().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn unreachable_location_leaves_the_202_unchanged() {
    let (server, log) = serve(|seen| match seen.method.as_str() {
        "POST" => accepted(),
        _ => broken("refused"),
    });
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json()["ticket"], 7);
    assert_eq!(log.all().len(), 12, "the request, a poll and ten retries");
}

#[tokio::test(start_paused = true)]
async fn timed_out_location_leaves_the_202_unchanged() {
    let (server, _) = script([accepted().with("retry-after", "7200")]);
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn proven_monitor_with_an_error_is_an_error() {
    let (server, _) = script([
        accepted(),
        document(json!({ "status": "running" })),
        reply(404).body("nothing here"),
    ]);
    let error = failure(post(server).await);
    assert!(matches!(
        error.reason(),
        Reason::UnexpectedStatus(StatusCode::NOT_FOUND)
    ));
    let document = error.document().expect("the last one");
    assert_eq!(document.status(), Some("running"));
}

#[tokio::test(start_paused = true)]
async fn content_location_of_the_request_is_no_monitor() {
    let (server, log) = script([reply(202).with("content-location", "/reports")]);
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.extension(), Some(NotFollowed::NoMonitor));
    assert_eq!(log.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn content_location_of_a_get_is_a_monitor() {
    let (server, log) = script([reply(202).with("content-location", REPORTS), reply(200)]);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request("GET", REPORTS)).await;
    assert_eq!(answer.expect("a response").status, StatusCode::OK);
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn response_202_without_monitor_is_unchanged() {
    for accepted in [
        reply(202).body("thank you"),
        reply(202).with("retry-after", "5").body("thank you"),
        reply(202).with("location", "").body("thank you"),
        reply(202)
            .with("location", "http://no address")
            .body("thank you"),
        reply(202)
            .with("link", "</next>; rel=next")
            .body("thank you"),
    ] {
        let (server, log) = script([accepted]);
        let answer = post(server).await.expect("a response");
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::ACCEPTED, "thank you")
        );
        assert_eq!(answer.extension(), Some(NotFollowed::NoMonitor));
        assert_eq!(log.all().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unproven_location_is_never_deleted() {
    let (server, log) = script([accepted()]);
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let following = follow(&layer, server, request("POST", REPORTS));
    let _ = tokio::time::timeout(std::time::Duration::from_millis(1), following).await;
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(log.all().len(), 1);
}
