//! Tests the ends of streamed responses, and responses that are streamed without a 202.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::time::sleep;
use tower_accepted::follow::{FollowAcceptedLayer, FollowError, Followed, Reason};

use crate::{stream_script::*, support::*};

#[tokio::test(start_paused = true)]
async fn monitor_without_a_stream_is_polled() {
    for status in [404, 405, 501] {
        let (server, log) = script([
            accepted(),
            reply(status),
            running().with("retry-after", "3"),
            succeeded(10),
            reply(201).body("the report"),
        ]);
        let answer = follow(&streaming(), server, request("POST", REPORTS)).await;
        let answer = answer.expect("a response");
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::CREATED, "the report")
        );
        assert_eq!(log.all()[2].uri.path(), "/jobs/1");
        assert_eq!(log.gaps()[1..3], [seconds(100), seconds(3)]);
    }
    // Without `Link` the monitor is none of this crate, and gets no request for a stream.
    let (server, log) = script([
        reply(202).with("operation-location", "/jobs/1"),
        succeeded(10),
        reply(201).body("the report"),
    ]);
    let answer = follow(&streaming(), server, request("POST", REPORTS)).await;
    assert_eq!(answer.expect("a response").text(), "the report");
    assert!(!log.lines().iter().any(|line| line.contains("stream")));
    // By default, nothing is streamed.
    let (server, log) = script([accepted(), succeeded(10), reply(200).body("the report")]);
    let answer = follow(
        &FollowAcceptedLayer::new(),
        server,
        request("POST", REPORTS),
    )
    .await;
    assert_eq!(answer.expect("a response").text(), "the report");
    assert!(!log.lines().iter().any(|line| line.contains("stream")));
}

#[tokio::test(start_paused = true)]
async fn document_tells_why_there_is_no_stream() {
    for status in [410, 500, 504] {
        let problem = reply(status).with("content-type", "application/problem+json");
        let (server, log) = script([accepted(), problem, failed(0)]);
        let error = failure(follow(&streaming(), server, request("POST", REPORTS)).await);
        assert!(matches!(error.reason(), Reason::Failed), "{error:?}");
        assert_eq!(log.gaps(), [Duration::ZERO; 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn document_decides_at_the_end_of_a_body() {
    let canceled = || {
        document(json!({
            "status": "canceled",
            "partial": { "status": 200, "contentLength": 7 },
            "error": { "code": "canceled" },
        }))
    };
    for (replies, expected) in [
        // The job ended after its response.
        (vec![running(), part(ONE, ended("")), succeeded(7)], None),
        // The connection ended early without an error.
        (
            vec![succeeded(8), part(ONE, ended("!")), succeeded(8)],
            None,
        ),
        (
            vec![failed(8), part(ONE, cut("!")), failed(8)],
            Some("Failed"),
        ),
        (vec![failed(7)], Some("Failed")),
        (vec![canceled()], Some("Canceled")),
        (
            vec![document(json!({ "status": "canceled" }))],
            Some("Canceled"),
        ),
        (vec![succeeded(6)], Some("Altered")),
        (vec![failed(6)], Some("Altered")),
        (vec![reply(404)], Some("UnexpectedStatus(404)")),
    ] {
        let replies: Vec<_> = [accepted(), part(ONE, ended("one two"))]
            .into_iter()
            .chain(replies)
            .collect();
        let count = replies.len();
        let (server, log) = script(replies);
        let (_, error) = stream_with(&streaming(), server).await;
        let reason = error.map(|error| format!("{:?}", stopped(Some(error)).reason()));
        assert_eq!(reason.as_deref(), expected);
        assert_eq!(log.all().len(), count);
    }
}

#[tokio::test(start_paused = true)]
async fn whole_content_length_or_trailers_prove_the_end() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", 7.into());
    let last = [Ok(Frame::trailers(trailers.clone()))];
    for (body, length, expected) in [
        (ended("one two"), Some("7"), None),
        (frames("one two", last), None, Some(trailers)),
    ] {
        let mut whole = part(ONE, body);
        if let Some(length) = length {
            whole = whole.with("content-length", length);
        }
        // There is no request for the document.
        let (server, _) = script([accepted(), whole]);
        let answer = follow(&streaming(), server, request("POST", REPORTS)).await;
        let answer = answer.expect("a response");
        assert_eq!(answer.text(), "one two");
        assert_eq!(answer.trailers, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_follow_a_break_at_the_last_byte() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", 7.into());
    let last = [Ok(Frame::trailers(trailers.clone()))];
    let (server, _) = script([
        accepted(),
        part(ONE, cut("one two")),
        succeeded(7),
        part(ONE, frames("", last)),
    ]);
    let answer = follow(&streaming(), server, request("POST", REPORTS)).await;
    let answer = answer.expect("a response");
    assert_eq!(answer.text(), "one two");
    assert_eq!(answer.trailers, Some(trailers));
}

#[tokio::test(start_paused = true)]
async fn size_hint_covers_all_parts() {
    let (server, _) = script([
        accepted(),
        part(ONE, cut("one ")).with("content-length", "7"),
        running(),
        part(ONE, ended("two")).with("content-length", "3"),
    ]);
    let mut body = call(&streaming(), server).await.into_body();
    assert_eq!(body.size_hint().exact(), Some(7));
    for left in [3, 0] {
        body.frame().await.expect("a frame").expect("data");
        assert_eq!(body.size_hint().exact(), Some(left));
        assert!(!body.is_end_stream(), "it may not be whole");
    }
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

/// A server whose job streams for ever.
fn endless() -> (Server, Log) {
    serve(|seen| match (seen.method.as_str(), seen.uri.path()) {
        ("POST", _) => accepted(),
        ("DELETE", _) => reply(204),
        (_, "/jobs/1/status") => running(),
        _ => {
            let one = stream::iter([Ok(Frame::data(Bytes::from_static(b"one")))]);
            let body = futures_util::StreamExt::chain(one, stream::pending());
            part(ONE, StreamBody::new(body).boxed_unsync())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn dropped_body_sends_no_request() {
    let (server, log) = endless();
    let mut body = call(&streaming(), server).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    // Nor does one that is being resumed.
    let (server, resuming) = serve(|seen| match seen.line().as_str() {
        "POST /reports" => accepted(),
        "GET /jobs/1/stream" => part(ONE, cut("one")),
        _ => running().after(seconds(10)),
    });
    let mut body = call(&streaming(), server).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    let next = tokio::time::timeout(seconds(5), body.frame()).await;
    assert!(next.is_err(), "the document is late");
    drop(body);
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
    sleep(seconds(1000)).await;
    assert_eq!((log.all().len(), resuming.all().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn dropped_body_cancels_its_job_if_enabled() {
    let layer = streaming().cancel_on_drop(seconds(5));
    let (server, log) = endless();
    let mut body = call(&layer, server).await.into_body();
    body.frame().await.expect("a frame").expect("data");
    drop(body);
    sleep(seconds(10)).await;
    assert_eq!(log.last().line(), "DELETE /jobs/1");

    // A body that has ended, either way, leaves the job alone.
    for replies in [
        vec![part(ONE, ended("one")).with("content-length", "3")],
        vec![part(ONE, ended("one")), succeeded(3)],
        vec![part(ONE, cut("one")), running(), reply(412)],
    ] {
        let replies: Vec<_> = [accepted()].into_iter().chain(replies).collect();
        let (server, log) = script(replies);
        stream_with(&layer, server).await;
        sleep(seconds(10)).await;
        assert!(log.all().iter().all(|seen| seen.method != "DELETE"));
    }
}

/// A response that a server streams instead of a 202.
fn streamed(body: Content) -> Reply {
    reply(200)
        .with(TEXT.0, TEXT.1)
        .with("link", "</jobs/1>; rel=\"monitor\"")
        .stream(body)
}

#[tokio::test(start_paused = true)]
async fn response_that_is_streamed_at_once_is_resumed() {
    let (server, log) = script([
        streamed(cut("one ")),
        running(),
        part(ONE, cut("two ")),
        running(),
        part(ONE, ended("three")),
        succeeded(13),
    ]);
    let response = call(&streaming(), server).await;
    assert!(response.extensions().get::<Followed>().is_none());
    let (data, error) = read(response.into_body()).await;
    assert_eq!(data, "one two three");
    assert!(error.is_none(), "{error:?}");
    let all = log.all();
    assert_eq!(
        log.lines()[2],
        "GET http://a.example/jobs/1/stream?offset=4"
    );
    // The first resumed answer names the run.
    assert_eq!(all[2].header("if-match"), None);
    assert_eq!(all[4].header("if-match"), Some(ONE.1));

    for (replies, expected, reason) in [
        (vec![streamed(ended("one")), succeeded(3)], "one", None),
        (
            vec![streamed(cut("one")), running(), reply(412)],
            "one",
            Some("Restarted"),
        ),
        (vec![streamed(cut("one")), failed(3)], "one", Some("Failed")),
        // The monitor has a part of what the server sent.
        (vec![streamed(cut("one")), failed(2)], "one", Some("Failed")),
    ] {
        let (server, _) = script(replies);
        let (data, error) = stream_with(&streaming(), server).await;
        assert_eq!(data, expected);
        let found = error.map(|error| format!("{:?}", stopped(Some(error)).reason()));
        assert_eq!(found.as_deref(), reason);
    }
}

#[tokio::test(start_paused = true)]
async fn response_too_large_to_keep_is_whole_for_its_client() {
    let too_large = document(json!({
        "status": "failed",
        "error": { "code": "result_too_large", "message": "It is too large." },
    }));
    let (server, _) = script([streamed(ended("one")), too_large]);
    let (data, error) = stream_with(&streaming(), server).await;
    assert_eq!((data.as_str(), error.is_none()), ("one", true));
}

#[tokio::test(start_paused = true)]
async fn response_of_another_server_ends_as_it_does() {
    // The link leads to something without documents, or without streams.
    for status in [
        || reply(404),
        || reply(200).json(json!({ "name": "a thing" })),
        || running(),
    ] {
        for is_clean in [true, false] {
            let (server, _) = serve(move |seen| match seen.uri.path() {
                "/reports" if is_clean => streamed(ended("one")),
                "/reports" => streamed(cut("one")),
                "/jobs/1/status" => status(),
                _ => reply(404),
            });
            let (data, error) = stream_with(&streaming(), server).await;
            assert_eq!(data, "one");
            match error {
                None => assert!(is_clean),
                Some(FollowError::Service(Broken("cut off"))) => assert!(!is_clean),
                Some(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whole_or_foreign_response_needs_no_further_request() {
    let away = "<https://b.example/jobs/1>; rel=\"monitor\"";
    for (layer, response, is_whole) in [
        (
            streaming(),
            streamed(ended("one")).with("content-length", "3"),
            true,
        ),
        (streaming(), reply(200).stream(cut("one")), false),
        (
            streaming(),
            reply(200).with("link", away).stream(cut("one")),
            false,
        ),
        (FollowAcceptedLayer::new(), streamed(cut("one")), false),
    ] {
        let (server, log) = script([response]);
        let (data, error) = stream_with(&layer, server).await;
        assert_eq!((data.as_str(), error.is_none()), ("one", is_whole));
        assert_eq!(log.all().len(), 1);
    }
}
