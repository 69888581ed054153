//! Tests the other two dialects of this crate. The monitor is `/jobs/1`, its status alias
//! `/jobs/1/status` and the result `/jobs/1/result`.

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tower_accepted::follow::{FollowAcceptedLayer, Followed, Reason};

use crate::support::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Pending202,
    SeeOther,
}
use Dialect::{Pending202, SeeOther};

/// The end of the job.
#[derive(Debug, Clone, Copy)]
enum End {
    /// With a response of this status.
    Response(u16),
    /// Without a response. The monitor returns a problem of this status instead.
    Problem(u16),
}
use End::{Problem, Response};

/// A server with one job that takes 7 s.
fn server(dialect: Dialect, end: End, with_operation_location: bool) -> (Server, Log) {
    let begun = Instant::now();
    serve(move |seen| {
        let is_ended = begun.elapsed() >= seconds(7);
        let status = match end {
            _ if !is_ended => "running",
            Response(200..400) => "succeeded",
            _ => "failed",
        };
        let mut status = json!({ "id": "1", "self": "/jobs/1", "status": status });
        match end {
            _ if !is_ended => status["percentComplete"] = json!(40),
            Response(code) => {
                status["resourceLocation"] = json!("/jobs/1/result");
                status["response"] = json!({ "status": code });
            }
            Problem(_) => status["error"] = json!({ "code": "timeout", "message": "Too slow." }),
        }
        let result = match end {
            Response(code) => reply(code)
                .with("asyncresult", &code.to_string())
                .with("content-type", "text/plain")
                .body("the report"),
            Problem(code) => reply(code)
                .with("content-type", "application/problem+json")
                .body(r#"{"title":"The job ended without a response"}"#),
        };
        let pending = |reply: Reply| reply.with("retry-after", "2");
        match (seen.line().as_str(), dialect) {
            ("POST /reports", _) => {
                let mut accepted = pending(reply(202))
                    .with("location", "/jobs/1")
                    .with("link", "</jobs/1>; rel=\"monitor\"")
                    .with("vary", "Prefer")
                    .json(status);
                if dialect == Pending202 {
                    accepted = accepted.with("content-location", "/jobs/1");
                }
                if with_operation_location {
                    accepted = accepted.with("operation-location", "/jobs/1/status");
                }
                accepted
            }
            ("GET /jobs/1", Pending202) if !is_ended => pending(reply(202))
                .with("content-location", "/jobs/1")
                .with("x-progress", "40%")
                .json(status),
            ("GET /jobs/1", SeeOther) if !is_ended => pending(reply(202)).json(status),
            ("GET /jobs/1", Pending202) => result,
            ("GET /jobs/1", SeeOther) => reply(303).with("location", "/jobs/1/result").json(status),
            ("GET /jobs/1/status", _) if !is_ended => pending(document(status)),
            ("GET /jobs/1/status", _) => document(status),
            ("GET /jobs/1/result", _) => result,
            _ => reply(404),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn pending202_monitor_returns_the_response_inline() {
    let (server, log) = server(Pending202, Response(201), false);
    let answer = post(server).await.expect("a response");
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::CREATED, "the report")
    );
    let polls = vec!["GET http://a.example/jobs/1"; 4];
    assert_eq!(
        log.lines(),
        [vec!["POST http://a.example/reports"], polls].concat()
    );
    assert!(
        log.gaps().iter().all(|gap| *gap == seconds(2)),
        "{:?}",
        log.gaps()
    );
}

#[tokio::test(start_paused = true)]
async fn see_other_monitor_redirects_to_the_response() {
    let (server, log) = server(SeeOther, Response(201), false);
    let answer = post(server).await.expect("a response");
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::CREATED, "the report")
    );
    let followed: Followed = answer.extension().expect("it was followed");
    assert_eq!(followed.monitor, "http://a.example/jobs/1");
    assert_eq!(followed.uri, "http://a.example/jobs/1/result");
    assert_eq!(followed.polls, 4);
    assert_eq!(log.last().line(), "GET /jobs/1/result");
}

#[tokio::test(start_paused = true)]
async fn status_alias_leads_to_the_same_response() {
    for dialect in [Pending202, SeeOther] {
        let (server, log) = server(dialect, Response(201), true);
        let answer = post(server).await.expect("a response");
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::CREATED, "the report")
        );
        let lines = log.lines();
        assert_eq!(lines[1], "GET http://a.example/jobs/1/status");
        assert_eq!(log.last().line(), "GET /jobs/1/result");
    }
}

#[tokio::test(start_paused = true)]
async fn error_status_of_the_service_is_the_response() {
    for code in [303, 404, 500, 503, 504] {
        for (dialect, alias) in [
            (Pending202, false),
            (Pending202, true),
            (SeeOther, false),
            (SeeOther, true),
        ] {
            let (server, _) = server(dialect, Response(code), alias);
            let answer = post(server).await.expect("a response");
            assert_eq!(answer.status, code, "{dialect:?} {alias}");
            assert_eq!(answer.text(), "the report");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn job_without_a_response_returns_its_problem() {
    for code in [409, 500, 502, 504] {
        for dialect in [Pending202, SeeOther] {
            let (server, _) = server(dialect, Problem(code), false);
            let answer = post(server).await.expect("a response");
            assert_eq!(answer.status, code, "{dialect:?}");
            assert_eq!(answer.json()["title"], "The job ended without a response");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn status_alias_has_the_cause_of_a_failure() {
    for dialect in [Pending202, SeeOther] {
        let (server, _) = server(dialect, Problem(504), true);
        let error = failure(post(server).await);
        assert!(matches!(error.reason(), Reason::Failed), "{error:?}");
        assert_eq!(error.to_string(), "the job failed: timeout: Too slow.");
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_goes_to_the_monitor_not_its_alias() {
    let (server, log) = server(Pending202, Response(200), true);
    let layer = FollowAcceptedLayer::new().cancel_on_drop(seconds(5));
    let following = follow(&layer, server, request("POST", REPORTS));
    let _ = tokio::time::timeout(seconds(1), following).await;
    while log.all().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.last().line(), "DELETE /jobs/1");
}
