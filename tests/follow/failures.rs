//! Tests failures of the request, the monitor and the result.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::{task::yield_now, time::advance};
use tower_accepted::follow::{FollowAcceptedLayer, FollowError, Reason};

use crate::support::*;

fn accepted() -> Reply {
    reply(202)
        .with("operation-location", "/jobs/1")
        .with("retry-after", "1")
}

fn running() -> Reply {
    document(json!({ "status": "running" })).with("retry-after", "1")
}

fn succeeded() -> Reply {
    document(json!({ "status": "succeeded", "resourceLocation": "/jobs/1/result" }))
}

/// A body that fails after `text`.
fn broken_off(text: &'static str) -> Content {
    let frames = [
        Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
        Err(Broken("cut off")),
    ];
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that stalls after `text`.
fn stalled(text: &'static str) -> Content {
    let begin = Frame::data(Bytes::from_static(text.as_bytes()));
    let frames = stream::iter([Ok(begin)]).chain(stream::pending());
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn failed_polls_are_retried_but_not_the_request() {
    let json = ("content-type", "application/json");
    let (server, log) = script([
        accepted(),
        broken("connection refused"),
        reply(429),
        reply(502),
        running(),
        reply(503),
        reply(504).with("content-type", "text/html"),
        reply(200).with(json.0, json.1).stream(broken_off("{\"sta")),
        reply(200).with(json.0, json.1).stream(stalled("{\"sta")),
        running().after(seconds(1000)),
        succeeded(),
        broken("connection reset"),
        reply(503),
        reply(201).body("the report"),
    ]);
    let answer = post(server).await.expect("a response");
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::CREATED, "the report")
    );
    let all = log.all();
    assert_eq!(all.iter().filter(|seen| seen.method == "POST").count(), 1);
    assert!(
        all[1..]
            .iter()
            .all(|seen| seen.method == "GET" && seen.body.is_empty())
    );
}

#[tokio::test(start_paused = true)]
async fn failures_obey_retry_after() {
    let (server, log) = script([
        accepted(),
        reply(429).with("retry-after", "120"),
        reply(503).with("retry-after", "0"),
        reply(502),
        reply(502),
        succeeded(),
        reply(503).with("retry-after", "60"),
        reply(200),
    ]);
    post(server).await.expect("a response");
    let gaps = log.gaps();
    assert_eq!(gaps[1], seconds(120));
    assert_eq!(gaps[2], Duration::from_millis(500));
    // The third and fourth consecutive failures.
    assert!(gaps[3] >= seconds(2) && gaps[3] <= seconds(5), "{gaps:?}");
    assert!(gaps[4] >= seconds(4) && gaps[4] <= seconds(9), "{gaps:?}");
    assert_eq!(gaps[6], seconds(60));
}

#[tokio::test(start_paused = true)]
async fn too_many_consecutive_failures_are_an_error() {
    let (server, log) = serve(|seen| match seen.method.as_str() {
        "POST" => accepted(),
        _ => broken("no route to host"),
    });
    let layer = FollowAcceptedLayer::new().max_failures(3);
    let error = failure(follow(&layer, server, request("POST", REPORTS)).await);
    assert!(
        matches!(error.reason(), Reason::Unreachable(_)),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "the job's monitor cannot be reached");
    assert_eq!(
        error.source().expect("a source").to_string(),
        "no route to host"
    );
    assert_eq!(error.monitor(), "http://a.example/jobs/1");
    assert_eq!(log.all().len(), 5, "the request, a poll and three retries");

    let (server, _) = serve(|seen| match seen.method.as_str() {
        "POST" => accepted(),
        _ => reply(503),
    });
    let error = failure(follow(&layer, server, request("POST", REPORTS)).await);
    assert!(matches!(
        error.reason(),
        Reason::Unavailable(StatusCode::SERVICE_UNAVAILABLE)
    ));
}

#[tokio::test(start_paused = true)]
async fn failures_before_a_success_are_forgotten() {
    let (server, _) = script([
        accepted(),
        broken("reset"),
        running(),
        broken("reset"),
        succeeded(),
        broken("reset"),
        reply(200),
    ]);
    let layer = FollowAcceptedLayer::new().max_failures(1);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
}

#[tokio::test(start_paused = true)]
async fn request_error_keeps_the_clients_type() {
    let (server, log) = script([broken("connection refused")]);
    let error = post(server).await.expect_err("an error");
    assert_eq!(error.to_string(), "connection refused");
    let error: Box<FollowError<Broken>> = error.downcast().expect("the layer's error");
    assert!(error.stopped().is_none(), "nothing was accepted");
    assert!(matches!(*error, FollowError::Service(Broken(_))));
    assert_eq!(log.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refusal_of_the_request_is_the_response() {
    for status in [429, 500, 503] {
        let (server, log) = script([reply(status).with("location", "/jobs/1")]);
        assert_eq!(post(server).await.expect("a response").status, status);
        assert_eq!(log.all().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unexpected_monitor_status_is_an_error() {
    for status in [400, 401, 403, 404, 410, 500, 300] {
        let (server, _) = script([accepted(), reply(status)]);
        let error = failure(post(server).await);
        assert!(matches!(error.reason(), Reason::UnexpectedStatus(found) if *found == status));
    }
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_and_limited() {
    let (server, log) = script([
        accepted(),
        reply(307).with("location", "/eu/jobs/1"),
        running(),
        reply(308).with("location", "/us/jobs/1"),
        running(),
        succeeded(),
        reply(302).with("location", "store/7"),
        reply(303).with("location", "8"),
        reply(200).body("the report"),
    ]);
    assert_eq!(post(server).await.expect("a response").text(), "the report");
    let paths: Vec<_> = log
        .all()
        .iter()
        .map(|seen| seen.uri.path().to_owned())
        .collect();
    assert_eq!(
        paths[1..],
        [
            "/jobs/1",
            "/eu/jobs/1",
            // The first redirect is temporary, the second permanent.
            "/jobs/1",
            "/us/jobs/1",
            "/us/jobs/1",
            "/jobs/1/result",
            "/jobs/1/store/7",
            "/jobs/1/store/8",
        ]
    );

    for end in [
        || reply(302).with("location", "/jobs/1"),
        || reply(303).with("location", "/jobs/1"),
    ] {
        let (server, log) = serve(move |seen| match seen.method.as_str() {
            "POST" => accepted(),
            _ => end(),
        });
        let layer = FollowAcceptedLayer::new().max_redirects(3);
        let error = failure(follow(&layer, server, request("POST", REPORTS)).await);
        assert!(
            matches!(error.reason(), Reason::TooManyRedirects(3)),
            "{error:?}"
        );
        assert_eq!(log.all().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn moved_result_is_retried_at_its_new_uri() {
    for (status, again) in [
        (301, "/store/1"),
        (308, "/store/1"),
        (302, "/jobs/1/result"),
    ] {
        let (server, log) = script([
            accepted(),
            succeeded(),
            reply(status).with("location", "/store/1"),
            reply(503),
            reply(200),
        ]);
        post(server).await.expect("a response");
        assert_eq!(log.last().uri.path(), again);
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_to_an_invalid_uri_is_an_error() {
    let (server, _) = script([accepted(), reply(307).with("location", "http://no address")]);
    let error = failure(post(server).await);
    assert!(matches!(error.reason(), Reason::InvalidUri), "{error:?}");
    let end = json!({ "status": "succeeded", "resourceLocation": "mailto:a@b" });
    let (server, _) = script([accepted(), document(end)]);
    let error = failure(post(server).await);
    assert!(matches!(error.reason(), Reason::InvalidUri), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn documents_are_limited_and_results_are_not() {
    let large = || "x".repeat(1000);
    let (server, _) = script([
        accepted(),
        document(json!({ "status": "running", "log": large() })),
    ]);
    let layer = FollowAcceptedLayer::new().max_document(500);
    let error = failure(follow(&layer, server, request("POST", REPORTS)).await);
    assert!(
        matches!(error.reason(), Reason::DocumentTooLarge(500)),
        "{error:?}"
    );

    // This monitor may send a document or the result.
    let result = json!({ "text": large() });
    let (server, _) = script([
        reply(202).with("content-location", "/jobs/1"),
        reply(200).json(result.clone()),
    ]);
    let answer = follow(&layer, server, request("POST", REPORTS)).await;
    assert_eq!(answer.expect("a response").json(), result);
}

#[tokio::test(start_paused = true)]
async fn unreadable_body_of_the_202_is_ignored() {
    let json = ("content-type", "application/json");
    for body in [
        broken_off("{\"sta"),
        stalled("{\"sta"),
        content("x".repeat(2000)),
    ] {
        let (server, _) = script([
            accepted().with(json.0, json.1).stream(body),
            succeeded(),
            reply(200).body("the report"),
        ]);
        let layer = FollowAcceptedLayer::new().max_document(500);
        let answer = follow(&layer, server, request("POST", REPORTS)).await;
        assert_eq!(answer.expect("a response").text(), "the report");
    }
}

#[tokio::test(start_paused = true)]
async fn always_ready_document_meets_its_timeout() {
    let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::new()))).take(30_000);
    let frames = frames.chain(stream::poll_fn(|_| panic!("the body is not read on")));
    let json = ("content-type", "application/json");
    let (server, _) = script([
        accepted()
            .with(json.0, json.1)
            .stream(StreamBody::new(frames).boxed_unsync()),
        succeeded(),
        reply(200).body("the report"),
    ]);
    let layer = FollowAcceptedLayer::new().answer_timeout(seconds(2));
    let answer =
        tokio::spawn(async move { follow(&layer, server, request("POST", REPORTS)).await });
    yield_now().await;
    // While a task is always ready, the paused clock does not advance by itself.
    advance(seconds(2)).await;
    let answer = answer.await.expect("no panic").expect("a response");
    assert_eq!(answer.text(), "the report");
}

#[tokio::test(start_paused = true)]
async fn body_of_a_returned_202_is_complete() {
    let json = ("content-type", "application/json");
    let large = format!("\"{}\"", "x".repeat(2000));
    let (server, _) = script([
        reply(202)
            .with("location", "/things/1")
            .with(json.0, json.1)
            .body(large.clone()),
        reply(404),
    ]);
    let layer = FollowAcceptedLayer::new().max_document(500);
    let answer = follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(answer.text(), large);

    let (server, _) = script([
        reply(202)
            .with("location", "/things/1")
            .with(json.0, json.1)
            .stream(broken_off("{")),
        reply(404),
    ]);
    let error = post(server).await.expect_err("the buffered error");
    assert_eq!(error.to_string(), "cut off");
}

#[tokio::test(start_paused = true)]
async fn result_body_error_reaches_the_caller() {
    let (server, _) = script([
        accepted(),
        succeeded(),
        reply(200).stream(broken_off("the rep")),
    ]);
    assert_eq!(
        post(server).await.expect_err("an error").to_string(),
        "cut off"
    );
}

#[tokio::test(start_paused = true)]
async fn delayed_result_is_polled_again() {
    let (server, log) = script([
        accepted(),
        succeeded(),
        reply(202).with("retry-after", "9"),
        reply(200).body("the report"),
    ]);
    assert_eq!(post(server).await.expect("a response").text(), "the report");
    assert_eq!(log.gaps().last(), Some(&seconds(9)));
}
