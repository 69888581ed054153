//! Tests the requests that resume a streamed response.

use std::{error::Error, time::Duration};

use serde_json::json;
use tokio::time::Instant;
use tower_accepted::follow::{Followed, Observer, Reason};

use crate::{stream_script::*, support::*};

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
async fn restarted_job_is_awaited_until_it_has_a_head() {
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
