//! Each way for a job to end.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::sleep;
use tower::{Layer, Service};
use tower_accepted::{Jobs, RequestBody};

use crate::support::*;

/// Runs one job to its end, and looks at the document and at what stands for the result.
async fn run<S>(jobs: &Jobs, service: S) -> (Value, Answer)
where
    S: Service<http::Request<RequestBody<Body>>, Response = Response<Body>, Error = Failed>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let service = jobs.layer().layer(service);
    let accepted = send(&service, post("/")).await;
    let document = ended(&service, &accepted).await;
    let result = result(&service, &accepted).await;
    // No end is followed by another.
    sleep(Duration::from_secs(1800)).await;
    assert_eq!(ended(&service, &accepted).await, document);
    assert_eq!(jobs.unfinished(), 0);
    (document, result)
}

/// Runs a job that ends without a response.
async fn broken<S>(jobs: &Jobs, service: S, code: &str, status: StatusCode)
where
    S: Service<http::Request<RequestBody<Body>>, Response = Response<Body>, Error = Failed>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let (document, result) = run(jobs, service).await;
    assert_eq!(document["status"], "failed");
    assert_eq!(document["error"]["code"], code);
    assert!(document["error"]["message"].is_string());
    assert!(document["finishedAt"].is_string() && document["expiresAt"].is_string());
    assert_eq!(document["response"], Value::Null);
    assert_eq!(document["resourceLocation"], Value::Null);
    assert_eq!(result.status, status);
    assert_eq!(
        result.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(result.header("asyncresult"), None);
    assert_eq!(result.json()["status"], status.as_u16());
    assert_eq!(result.json()["code"], code);
    for text in [document.to_string(), result.text().to_owned()] {
        assert!(
            !text.contains("sesame"),
            "what went wrong inside stays inside"
        );
    }
}

const SERVER_ERROR: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

#[tokio::test(start_paused = true)]
async fn a_response_below_400_ends_it_as_succeeded() {
    for code in [200, 204, 303, 399] {
        let answer = inner(move |_| async move {
            let response = Response::builder().status(code);
            Ok(response.body(Body::empty()).unwrap())
        });
        let (document, result) = run(&Jobs::new(), answer).await;
        assert_eq!(document["status"], "succeeded");
        assert_eq!(document["response"]["status"], code);
        assert_eq!(document["error"], Value::Null);
        assert_eq!(result.status, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_of_400_or_above_ends_it_as_failed_and_is_replayed() {
    for code in [400, 404, 500, 503] {
        let answer = inner(move |_| async move {
            let response = Response::builder().status(code);
            Ok(response.body(Body::from("what went wrong")).unwrap())
        });
        let (document, result) = run(&Jobs::new(), answer).await;
        assert_eq!(document["status"], "failed");
        assert_eq!(document["error"]["code"], "http_error");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains(&code.to_string()), "{message}");
        assert_eq!(document["response"]["status"], code);
        assert_eq!(result.status, code);
        assert_eq!(result.header("asyncresult"), Some(&*code.to_string()));
        assert_eq!(result.text(), "what went wrong");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_ends_it_as_failed() {
    let fails = inner(async |_| Err::<Response<Body>, _>(Failed));
    broken(&Jobs::new(), fails, "inner_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_of_protocols_ends_it_as_failed() {
    let switches = inner(async |_| {
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        Ok(response.body(Body::empty()).unwrap())
    });
    broken(&Jobs::new(), switches, "inner_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_call_ends_it_as_failed() {
    let panics =
        inner(|_| -> std::future::Ready<Result<Response<Body>, Failed>> { panic!("in the call") });
    broken(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_first_await_ends_it_as_failed() {
    let panics = inner(async |_| -> Result<Response<Body>, Failed> { panic!("before the first") });
    broken(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_the_first_await_ends_it_as_failed() {
    let panics = inner(async |_| -> Result<Response<Body>, Failed> {
        sleep(Duration::from_secs(1)).await;
        panic!("after the first await")
    });
    broken(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_response_body_ends_it_as_failed() {
    let panics = inner(async |_| {
        let frames = stream::unfold(0, |frame| async move {
            sleep(Duration::from_secs(1)).await;
            assert!(frame < 2, "in the body");
            Some((Ok::<_, Failed>(Bytes::from_static(b"frame")), frame + 1))
        });
        Ok(Response::new(Body::from_stream(frames)))
    });
    broken(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_response_body_ends_it_as_failed() {
    let breaks = inner(async |_| {
        let frames = stream::iter([Ok(Bytes::from_static(b"frame")), Err(Failed)]);
        Ok(Response::new(Body::from_stream(frames)))
    });
    broken(&Jobs::new(), breaks, "body_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_of_its_declared_length_ends_it_as_failed() {
    let lies = inner(async |_| {
        let response = Response::builder().header("content-length", "10");
        Ok(response.body(Body::from("nine char")).unwrap())
    });
    broken(&Jobs::new(), lies, "body_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_over_the_limit_ends_it_as_failed() {
    let jobs = Jobs::builder().max_result(10).build();
    let whole = inner(async |_| ok("10 letters"));
    assert_eq!(run(&jobs, whole).await.0["status"], "succeeded");
    let whole = inner(async |_| ok("11 letters."));
    broken(&jobs, whole, "result_too_large", SERVER_ERROR).await;
    let in_frames = inner(async |_| {
        let frames = stream::repeat_with(|| Ok::<_, Failed>(Bytes::from_static(b"frame")));
        Ok(Response::new(Body::from_stream(frames)))
    });
    broken(&jobs, in_frames, "result_too_large", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_there_is_no_room_for_ends_it_as_failed() {
    let jobs = Jobs::builder().max_bytes(1_000).build();
    let large = inner(async |_| Ok(Response::new(Body::from(vec![0; 1_000]))));
    broken(&jobs, large, "result_too_large", SERVER_ERROR).await;
    let large = inner(async |_| {
        let response = Response::builder().header("x", "x".repeat(1_000));
        Ok(response.body(Body::empty()).unwrap())
    });
    broken(&jobs, large, "result_too_large", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_ends_it_as_failed() {
    let hangs = inner(async |_| pending::<Result<Response<Body>, Failed>>().await);
    broken(&Jobs::new(), hangs, "timeout", StatusCode::GATEWAY_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn a_response_body_that_takes_too_long_ends_it_as_failed() {
    let jobs = Jobs::builder().job_timeout(Duration::from_secs(5)).build();
    let hangs = inner(async |_| {
        let frames = stream::pending::<Result<Bytes, Failed>>();
        Ok(Response::new(Body::from_stream(frames)))
    });
    broken(&jobs, hangs, "timeout", StatusCode::GATEWAY_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_time_out_a_job_may_take_its_time() {
    let jobs = Jobs::builder().job_timeout(None).build();
    let slow = inner(async |_| {
        sleep(Duration::from_secs(7 * 24 * 3600)).await;
        ok("at last")
    });
    let service = jobs.layer().layer(slow);
    let accepted = send(&service, post("/")).await;
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    assert_eq!(result(&service, &accepted).await.text(), "at last");
}

#[test]
fn a_runtime_that_goes_away_ends_it_as_shutdown() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let jobs = Jobs::new();
    let first = runtime();
    let hangs = inner(async |_| pending::<Result<Response<Body>, Failed>>().await);
    let service = jobs.layer().layer(hangs);
    let accepted = first.block_on(async {
        let accepted = send(&service, post("/")).await;
        tokio::task::yield_now().await;
        accepted
    });
    assert_eq!(jobs.unfinished(), 1);
    drop(first);
    assert_eq!(jobs.unfinished(), 0);
    runtime().block_on(async {
        let document = ended(&service, &accepted).await;
        assert_eq!(document["error"]["code"], "shutdown");
        assert_eq!(result(&service, &accepted).await.status, SERVER_ERROR);
        // The registry goes on in another runtime.
        let again = jobs.layer().layer(inner(async |_| ok("")));
        let accepted = send(&again, post("/")).await;
        tokio::task::yield_now().await;
        assert_eq!(ended(&again, &accepted).await["status"], "succeeded");
    });
}

#[tokio::test(start_paused = true)]
async fn what_the_call_holds_is_let_go_when_its_response_has_come() {
    let (dropped, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().layer(inner({
        let dropped = dropped.clone();
        move |_| {
            let guard = OnDrop(dropped.clone());
            async move {
                let _guard = guard;
                let body = Body::new(Body::from("body").map_frame(|frame| frame));
                Ok(Response::new(body))
            }
        }
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    assert_eq!(dropped.count(), 1);
}
