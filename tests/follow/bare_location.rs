//! A 202 that says where, and not what that is: a `Location` alone.

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
async fn what_does_not_look_like_a_monitor_leaves_the_202_as_it_is() {
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
        let place = "http://a.example/things/1".parse().expect("a URI");
        assert_eq!(reason, NotFollowed::NoMonitorThere(place));
        assert!(answer.extension::<Followed>().is_none());
        assert_eq!(log.all().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_looks_like_a_monitor_is_followed() {
    for (probe, expected) in [
        // A status document with a known word.
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
        // Pending, then anything.
        (|| vec![reply(202), reply(404)], StatusCode::NOT_FOUND),
        (
            || vec![reply(202), document(json!({ "status": "running" }))],
            StatusCode::OK,
        ),
        // The way to the result, or the result that says so.
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
        // Not at once.
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
async fn what_never_answers_leaves_the_202_as_it_is() {
    let (server, log) = serve(|seen| match seen.method.as_str() {
        "POST" => accepted(),
        _ => broken("refused"),
    });
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json()["ticket"], 7);
    assert_eq!(log.all().len(), 12, "the request, a poll, and ten more");
}

#[tokio::test(start_paused = true)]
async fn what_answers_too_late_leaves_the_202_as_it_is() {
    let (server, _) = script([accepted().with("retry-after", "7200")]);
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn once_it_was_a_monitor_its_errors_are_about_the_monitor() {
    let (server, _) = script([
        accepted(),
        document(json!({ "status": "running" })),
        reply(404).body("nothing here"),
    ]);
    let error = failure(post(server).await);
    assert!(matches!(
        error.reason(),
        Reason::Unreadable(StatusCode::NOT_FOUND)
    ));
    let document = error.document().expect("the last one");
    assert_eq!(document.status(), Some("running"));
}

#[tokio::test(start_paused = true)]
async fn a_content_location_of_the_request_itself_is_no_monitor() {
    let (server, log) = script([reply(202).with("content-location", "/reports")]);
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.extension(), Some(NotFollowed::NoMonitor));
    assert_eq!(log.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_content_location_of_the_monitor_itself_is_one() {
    let (server, log) = script([reply(202).with("content-location", REPORTS), reply(200)]);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request("GET", REPORTS)).await;
    assert_eq!(answer.expect("a response").status, StatusCode::OK);
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_202_without_a_monitor_is_returned_as_it_is() {
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
async fn a_thing_that_will_be_there_is_never_deleted() {
    let (server, log) = script([accepted()]);
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let following = follow(&layer, server, request("POST", REPORTS));
    let _ = tokio::time::timeout(std::time::Duration::from_millis(1), following).await;
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(log.all().len(), 1);
}
