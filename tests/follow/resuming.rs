//! Tests the requests that resume a streamed response, and the ends of such a response.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_accepted::follow::{
    FollowAcceptedLayer, FollowBody, FollowError, Followed, Observer, Reason, Stopped,
};

use crate::support::*;

const ONE: (&str, &str) = ("etag", "\"tower-accepted:x.1\"");
const TWO: (&str, &str) = ("etag", "\"tower-accepted:x.2\"");
const TEXT: (&str, &str) = ("content-type", "text/plain");

fn streaming() -> FollowAcceptedLayer {
    FollowAcceptedLayer::new().streaming(true)
}

fn accepted() -> Reply {
    reply(202)
        .with("operation-location", "/jobs/1")
        .with("link", "</jobs/1>; rel=\"monitor\"")
        .with("retry-after", "100")
}

fn running() -> Reply {
    document(json!({ "status": "running" }))
}

fn succeeded(length: u64) -> Reply {
    let response = json!({ "status": 200, "contentLength": length });
    document(json!({
        "status": "succeeded",
        "resourceLocation": "/jobs/1/result",
        "response": response,
    }))
}

fn failed(partial: u64) -> Reply {
    document(json!({
        "status": "failed",
        "partial": { "status": 200, "contentLength": partial },
        "error": { "code": "lost", "message": "The process died." },
    }))
}

/// A part of the output, of this run.
fn part((name, etag): (&'static str, &str), body: Content) -> Reply {
    reply(200)
        .with("asyncresult", "200")
        .with(name, etag)
        .with(TEXT.0, TEXT.1)
        .stream(body)
}

fn frames(
    text: &'static str,
    last: impl IntoIterator<Item = Result<Frame<Bytes>, Broken>>,
) -> Content {
    let text = Bytes::from_static(text.as_bytes());
    let data = (!text.is_empty()).then(|| Ok(Frame::data(text)));
    let frames: Vec<_> = data.into_iter().chain(last).collect();
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that fails after `text`.
fn cut(text: &'static str) -> Content {
    frames(text, [Err(Broken("cut off"))])
}

/// A body that ends after `text`.
fn ended(text: &'static str) -> Content {
    frames(text, [])
}

async fn call(layer: &FollowAcceptedLayer, server: Server) -> Response<FollowBody<Content>> {
    let client = layer.layer(server);
    let response = client.oneshot(request("POST", REPORTS)).await;
    response.expect("a response")
}

/// Sends a request through the layer and reads the body.
async fn stream_with(
    layer: &FollowAcceptedLayer,
    server: Server,
) -> (String, Option<FollowError<Broken>>) {
    read(call(layer, server).await.into_body()).await
}

/// Returns the error of a body that was resumed.
fn stopped(error: Option<FollowError<Broken>>) -> Box<Stopped> {
    match error {
        Some(FollowError::Stopped(stopped)) => stopped,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_names_the_offset_and_the_run() {
    let (server, log) = script([
        accepted(),
        part(ONE, cut("one ")),
        running(),
        // A proxy has made the tag weak.
        part(("etag", "W/\"tower-accepted:x.1\""), cut("two ")),
        running(),
        part(ONE, cut("")),
        running(),
        part(ONE, ended("three")),
        succeeded(13),
    ]);
    let mut post = request("POST", REPORTS);
    for (name, value) in [
        ("accept", "text/plain"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer token"),
    ] {
        post.headers_mut()
            .insert(name, value.parse().expect("a value"));
    }
    let answer = follow(&streaming(), server, post).await;
    let answer = answer.expect("a response");
    assert_eq!(answer.text(), "one two three");
    let followed: Followed = answer.extension().expect("it was followed");
    assert_eq!(followed.uri, "http://a.example/jobs/1/stream");
    assert_eq!(followed.monitor, "http://a.example/jobs/1");
    let jobs = "http://a.example/jobs/1";
    assert_eq!(
        log.lines()[1..],
        [
            format!("GET {jobs}/stream"),
            format!("GET {jobs}/status"),
            format!("GET {jobs}/stream?offset=4"),
            format!("GET {jobs}/status"),
            format!("GET {jobs}/stream?offset=8"),
            format!("GET {jobs}/status"),
            format!("GET {jobs}/stream?offset=8"),
            format!("GET {jobs}/status"),
        ]
    );
    let all = log.all();
    for (at, seen) in all.iter().enumerate().skip(1) {
        assert_eq!(seen.header("authorization"), Some("Bearer token"));
        if seen.uri.path().ends_with("/stream") {
            let run = (at > 1).then_some(ONE.1);
            assert_eq!(seen.header("if-match"), run);
            let wait = seen.header("prefer").expect("a wait");
            assert!(wait.starts_with("wait="), "{wait}");
            assert_eq!(seen.header("accept"), Some("text/plain"));
            // A code on the way would change what offsets count.
            assert_eq!(seen.header("accept-encoding"), Some("identity"));
        } else {
            // Only an end without an error gives the job time to end.
            let wait = (at == 8).then_some("wait=1");
            assert_eq!(seen.header("prefer"), wait);
        }
    }
    // The end of the response needs no pause, and each attempt to resume it has one.
    let gaps = log.gaps();
    assert_eq!((gaps[0], gaps[7]), (Duration::ZERO, Duration::ZERO));
    let pause = Duration::from_millis(500);
    assert!(
        gaps[1] >= pause && gaps[3] >= pause && gaps[5] >= 2 * pause,
        "{gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn stream_that_is_held_is_asked_for_again_at_once() {
    let pending = || {
        let pending = reply(202).with("retry-after", "1000");
        pending.json(json!({ "status": "running" }))
    };
    let (server, log) = script([
        accepted(),
        pending().after(seconds(30)),
        broken("connection reset"),
        reply(503).with("retry-after", "7"),
        pending().after(seconds(7)),
        // This server does not hold requests.
        pending(),
        part(ONE, ended("")).with("content-length", "0"),
    ]);
    let (data, error) = stream_with(&streaming(), server).await;
    assert_eq!((data.as_str(), error.is_none()), ("", true));
    let gaps = log.gaps();
    assert_eq!(gaps[1], seconds(30));
    assert_eq!(gaps[3], seconds(7));
    assert_eq!(gaps[4], seconds(7));
    assert_eq!(gaps[5], seconds(1000));
}

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
async fn restart_is_silent_while_nothing_was_handed_out() {
    let (server, log) = script([
        accepted(),
        part(ONE, cut("")),
        running(),
        part(TWO, cut("new ")),
        running(),
        part(TWO, ended("output")),
        succeeded(10),
    ]);
    let (data, error) = stream_with(&streaming(), server).await;
    assert_eq!(data, "new output");
    assert!(error.is_none(), "{error:?}");
    let all = log.all();
    assert_eq!(all[3].header("if-match"), None);
    assert_eq!(all[5].header("if-match"), Some(TWO.1));
}

#[tokio::test(start_paused = true)]
async fn restart_is_an_error_once_bytes_were_handed_out() {
    for resumed in [
        reply(412),
        // A server that ignores `If-Match`.
        part(TWO, ended("output")),
    ] {
        let (server, _) = script([accepted(), part(ONE, cut("old ")), running(), resumed]);
        let (data, error) = stream_with(&streaming(), server).await;
        assert_eq!(data, "old ");
        let error = stopped(error);
        assert!(matches!(error.reason(), Reason::Restarted), "{error:?}");
        assert_eq!(error.document().and_then(|it| it.status()), Some("running"));
        assert_eq!(error.monitor(), "http://a.example/jobs/1");
    }
    // The caller has the head of the first run.
    let (server, _) = script([
        accepted(),
        part(ONE, cut("")),
        running(),
        part(TWO, ended("output")).with("content-encoding", "gzip"),
    ]);
    let (_, error) = stream_with(&streaming(), server).await;
    assert!(matches!(stopped(error).reason(), Reason::Restarted));
}

#[tokio::test(start_paused = true)]
async fn restarted_job_is_waited_for_until_its_new_run_has_a_head() {
    let queued = || {
        let queued = reply(202).json(json!({ "status": "queued" }));
        queued.with("retry-after", "100").after(seconds(30))
    };
    let mut replies = vec![accepted(), part(ONE, cut("old ")), running()];
    for _ in 0..20 {
        replies.extend([queued(), document(json!({ "status": "queued" }))]);
    }
    replies.push(reply(412));
    let (server, _) = script(replies);
    let (_, error) = stream_with(&streaming(), server).await;
    assert!(matches!(stopped(error).reason(), Reason::Restarted));
}

#[tokio::test(start_paused = true)]
async fn attempts_without_a_new_byte_are_limited() {
    let layer = streaming().max_failures(3);
    let (server, log) = serve(|seen| match (seen.line().as_str(), seen.uri.query()) {
        ("POST /reports", _) => accepted(),
        ("GET /jobs/1/status", _) => running(),
        (_, None) => part(ONE, cut("one")),
        _ => part(ONE, cut("")),
    });
    let (data, error) = stream_with(&layer, server).await;
    assert_eq!(data, "one");
    let error = stopped(error);
    assert!(matches!(error.reason(), Reason::BrokenOff(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the response broke off and cannot be resumed"
    );
    assert_eq!(error.source().expect("a source").to_string(), "cut off");
    assert_eq!(log.all().len(), 2 + 2 * 3);

    // The same without errors.
    let (server, _) = serve(|seen| match (seen.line().as_str(), seen.uri.query()) {
        ("POST /reports", _) => accepted(),
        ("GET /jobs/1/status", _) => running(),
        (_, None) => part(ONE, ended("one")),
        _ => part(ONE, ended("")),
    });
    let (_, error) = stream_with(&layer, server).await;
    let error = stopped(error);
    assert!(matches!(error.reason(), Reason::BrokenOff(_)), "{error:?}");
    let source = error.source().expect("a source").to_string();
    assert_eq!(source, "the body ended before the response did");

    // Each byte allows as many attempts again.
    let (server, log) = serve(|seen| match seen.uri.query() {
        _ if seen.method == "POST" => accepted(),
        None if seen.uri.path().ends_with("/status") => running(),
        Some("offset=30") => reply(412),
        _ => part(ONE, cut("x")),
    });
    let (data, error) = stream_with(&layer, server).await;
    assert_eq!(data, "x".repeat(30));
    assert!(matches!(stopped(error).reason(), Reason::Restarted));
    assert_eq!(log.all().len(), 2 + 2 * 30);
}

#[tokio::test(start_paused = true)]
async fn unavailable_monitor_is_asked_again_while_resuming() {
    let (server, log) = script([
        accepted(),
        part(ONE, cut("one ")),
        reply(429).with("retry-after", "120"),
        broken("connection refused"),
        running(),
        reply(503).with("retry-after", "60"),
        running(),
        reply(504),
        running(),
        part(ONE, ended("two")),
        succeeded(7),
    ]);
    let (data, error) = stream_with(&streaming(), server).await;
    assert_eq!(data, "one two");
    assert!(error.is_none(), "{error:?}");
    let gaps = log.gaps();
    assert_eq!((gaps[2], gaps[5]), (seconds(120), seconds(60)));

    let layer = streaming().max_failures(3);
    for (reply, is_expected) in [
        (
            (|| reply(503)) as fn() -> Reply,
            (|reason| matches!(reason, Reason::Unavailable(status) if *status == 503))
                as fn(&Reason) -> bool,
        ),
        (
            || broken("no route to host"),
            |reason| matches!(reason, Reason::Unreachable(_)),
        ),
        (
            || reply(404),
            |reason| matches!(reason, Reason::UnexpectedStatus(status) if *status == 404),
        ),
    ] {
        let (server, _) = serve(move |seen| match seen.line().as_str() {
            "POST /reports" => accepted(),
            "GET /jobs/1/stream" => part(ONE, cut("one")),
            _ => reply(),
        });
        let (_, error) = stream_with(&layer, server).await;
        let error = stopped(error);
        assert!(is_expected(error.reason()), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_applies_to_each_break_anew() {
    let layer = streaming()
        .timeout(seconds(100))
        .pauses(seconds(80), seconds(80));
    let (server, log) = serve(|seen| match (seen.line().as_str(), seen.uri.query()) {
        ("POST /reports", _) => accepted(),
        ("GET /jobs/1/status", _) => running(),
        (_, None | Some("offset=1" | "offset=2")) => part(ONE, cut("x")),
        _ => reply(503).with("retry-after", "1000"),
    });
    let start = Instant::now();
    let (data, error) = stream_with(&layer, server).await;
    assert_eq!(data, "xxx");
    let error = stopped(error);
    assert!(matches!(error.reason(), Reason::TimedOut(limit) if *limit == seconds(100)));
    // Two pauses, and the limit.
    assert_eq!(start.elapsed().as_secs(), 80 + 80 + 100);
    assert_eq!(log.all().len(), 8);
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

#[tokio::test(start_paused = true)]
async fn content_that_was_altered_on_the_way_is_not_joined() {
    let bytes = |etag: (&'static str, &str)| {
        reply(200)
            .with("asyncresult", "200")
            .with(etag.0, etag.1)
            .with("content-type", "application/octet-stream")
    };
    for resumed in [
        // The first part was decoded, and parts of coded content are sent as bytes.
        bytes(ONE).body("two"),
        part(ONE, ended("two")).with("content-encoding", "gzip"),
        part(ONE, ended("two")).with("content-length", "4"),
    ] {
        let first = part(ONE, cut("one ")).with("content-length", "7");
        let (server, _) = script([accepted(), first, running(), resumed]);
        let (data, error) = stream_with(&streaming(), server).await;
        assert_eq!(data, "one ");
        let error = stopped(error);
        assert!(matches!(error.reason(), Reason::Altered), "{error:?}");
    }
    // Coded content is resumed if the caller gets it as it is.
    let (server, _) = script([
        accepted(),
        part(ONE, cut("one ")).with("content-encoding", "gzip"),
        running(),
        bytes(ONE).body("two"),
        succeeded(7),
    ]);
    let (data, error) = stream_with(&streaming(), server).await;
    assert_eq!(data, "one two");
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_while_resuming() {
    let (server, log) = script([
        accepted(),
        reply(307).with("location", "/eu/jobs/1/stream"),
        part(ONE, cut("one ")),
        reply(307).with("location", "/eu/jobs/1/status"),
        running(),
        reply(307).with("location", "/eu/jobs/1/stream?offset=4"),
        part(ONE, cut("two ")),
        running(),
        // This redirect would send the first bytes again.
        reply(307).with("location", "/eu/jobs/1/stream"),
    ]);
    let (data, error) = stream_with(&streaming(), server).await;
    assert_eq!(data, "one two ");
    let error = stopped(error);
    assert!(matches!(error.reason(), Reason::UnexpectedStatus(status) if *status == 307));
    assert_eq!(log.all()[6].header("if-match"), Some(ONE.1));

    for (away, layer) in [
        ("https://b.example/jobs/1/status", streaming()),
        ("/jobs/1/status", streaming().max_redirects(3)),
    ] {
        let (server, _) = serve(move |seen| match seen.line().as_str() {
            "POST /reports" => accepted(),
            "GET /jobs/1/stream" => part(ONE, cut("one ")),
            _ => reply(307).with("location", away),
        });
        let (_, error) = stream_with(&layer, server).await;
        match stopped(error).reason() {
            Reason::OtherOrigin(uri) => assert_eq!(uri, away),
            Reason::TooManyRedirects(limit) => assert_eq!(*limit, 3),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn observer_gets_the_documents_of_a_stream() {
    let (sender, mut updates) = tokio::sync::mpsc::unbounded_channel();
    let (server, _) = script([
        accepted(),
        reply(202).json(json!({ "status": "running", "percentComplete": 10 })),
        part(ONE, cut("one ")),
        document(json!({ "status": "running", "percentComplete": 50 })),
        part(ONE, ended("two")),
        succeeded(7),
    ]);
    let mut post = request("POST", REPORTS);
    post.extensions_mut().insert(Observer::new(move |update| {
        let _ = sender.send((update.polls, update.percent));
    }));
    follow(&streaming(), server, post)
        .await
        .expect("a response");
    let mut seen = Vec::new();
    while let Ok(update) = updates.try_recv() {
        seen.push(update);
    }
    assert_eq!(
        seen,
        [(0, None), (1, Some(10.0)), (3, Some(50.0)), (5, None)]
    );
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
