//! Ends jobs in each possible way.

use std::{error::Error, fmt, future::pending, panic::panic_any, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceBuilder};
use tower_accepted::{Jobs, RequestBody};

use crate::support::*;

/// Runs a job to its end. Returns its document, and the response for its result.
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
    // The job does not change after its end.
    sleep(Duration::from_secs(1800)).await;
    assert_eq!(ended(&service, &accepted).await, document);
    assert_eq!(jobs.unfinished(), 0);
    (document, result)
}

/// Runs a job that must fail with `code` and without a response.
async fn assert_fails<S>(jobs: &Jobs, service: S, code: &str, status: StatusCode)
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
        assert!(!text.contains("sesame"), "the text of the error leaks");
    }
}

const SERVER_ERROR: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

#[tokio::test(start_paused = true)]
async fn response_below_400_is_a_success() {
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
async fn response_from_400_is_a_failure_with_a_result() {
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
async fn error_of_the_service_fails_the_job() {
    let fails = inner(async |_| Err::<Response<Body>, _>(Failed));
    assert_fails(&Jobs::new(), fails, "inner_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn protocol_switch_fails_the_job() {
    let switches = inner(async |_| {
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        Ok(response.body(Body::empty()).unwrap())
    });
    assert_fails(&Jobs::new(), switches, "inner_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn panic_in_the_call_fails_the_job() {
    let panics =
        inner(|_| -> std::future::Ready<Result<Response<Body>, Failed>> { panic!("in the call") });
    assert_fails(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn panic_before_the_first_await_fails_the_job() {
    let panics = inner(async |_| -> Result<Response<Body>, Failed> { panic!("before the first") });
    assert_fails(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn panic_after_the_first_await_fails_the_job() {
    let panics = inner(async |_| -> Result<Response<Body>, Failed> {
        sleep(Duration::from_secs(1)).await;
        panic!("after the first await")
    });
    assert_fails(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn panic_in_the_response_body_fails_the_job() {
    let panics = inner(async |_| {
        let frames = stream::unfold(0, |frame| async move {
            sleep(Duration::from_secs(1)).await;
            assert!(frame < 2, "in the body");
            Some((Ok::<_, Failed>(Bytes::from_static(b"frame")), frame + 1))
        });
        Ok(Response::new(Body::from_stream(frames)))
    });
    assert_fails(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn panic_payload_that_panics_on_drop_fails_the_job() {
    /// Panics on drop, with a payload that does so too, if there are any `left`.
    struct Bomb {
        left: u32,
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(left) = self.left.checked_sub(1) {
                panic_any(Bomb { left });
            }
        }
    }
    for left in [1, 2] {
        let panics = inner(move |_| async move {
            panic_any(Bomb { left });
            #[expect(unreachable_code, reason = "it has the type of a response")]
            ok("")
        });
        assert_fails(&Jobs::new(), panics, "panic", SERVER_ERROR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn broken_response_body_fails_the_job() {
    let breaks = inner(async |_| {
        let frames = stream::iter([Ok(Bytes::from_static(b"frame")), Err(Failed)]);
        Ok(Response::new(Body::from_stream(frames)))
    });
    assert_fails(&Jobs::new(), breaks, "body_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn body_of_another_length_fails_the_job() {
    let lies = inner(async |_| {
        let response = Response::builder().header("content-length", "10");
        Ok(response.body(Body::from("nine char")).unwrap())
    });
    assert_fails(&Jobs::new(), lies, "body_error", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn result_over_the_limit_fails_the_job() {
    let jobs = Jobs::builder().max_result(10).build();
    let whole = inner(async |_| ok("10 letters"));
    assert_eq!(run(&jobs, whole).await.0["status"], "succeeded");
    let whole = inner(async |_| ok("11 letters."));
    assert_fails(&jobs, whole, "result_too_large", SERVER_ERROR).await;
    let in_frames = inner(async |_| {
        let frames = stream::repeat_with(|| Ok::<_, Failed>(Bytes::from_static(b"frame")));
        Ok(Response::new(Body::from_stream(frames)))
    });
    assert_fails(&jobs, in_frames, "result_too_large", SERVER_ERROR).await;
}

/// Returns a map of this number of values for one name.
fn values(count: usize) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for at in 0..count {
        fields.append("x-any", HeaderValue::from(at));
    }
    fields
}

#[tokio::test(start_paused = true)]
async fn result_with_too_many_fields_fails_the_job() {
    for count in [24_001, 24_577, 70_000] {
        let in_head = inner(move |_| async move {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = values(count);
            Ok(response)
        });
        assert_fails(&Jobs::new(), in_head, "result_too_large", SERVER_ERROR).await;
        let in_trailers = inner(move |_| async move {
            let trailers = async move { Some(Ok(values(count))) };
            let body = Body::from("body").with_trailers(trailers);
            Ok(Response::new(Body::new(body)))
        });
        assert_fails(&Jobs::new(), in_trailers, "result_too_large", SERVER_ERROR).await;
    }
    let in_two_trailers = inner(async |_| {
        let frames = [15_000, 15_000].map(|count| Ok::<_, Failed>(Frame::trailers(values(count))));
        let body = StreamBody::new(stream::iter(frames));
        Ok(Response::new(Body::new(body)))
    });
    assert_fails(
        &Jobs::new(),
        in_two_trailers,
        "result_too_large",
        SERVER_ERROR,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn result_with_many_fields_is_replayed() {
    let mut fields = HeaderMap::new();
    for at in 0..24_000 {
        let name = HeaderName::try_from(format!("x-{at}")).unwrap();
        fields.append(name, HeaderValue::from(at));
    }
    let all = fields.clone();
    let many = inner(move |_| {
        let (head, trailers) = (fields.clone(), fields.clone());
        async move {
            let body = Body::from("body").with_trailers(async { Some(Ok(trailers)) });
            let mut response = Response::new(Body::new(body));
            *response.headers_mut() = head;
            Ok(response)
        }
    });
    let (_, result) = run(&Jobs::new(), many).await;
    assert_eq!(result.trailers.as_ref(), Some(&all));
    let mut names = all.keys();
    assert!(names.all(|name| result.headers.get(name) == all.get(name)));
}

#[tokio::test(start_paused = true)]
async fn result_over_the_budget_fails_the_job() {
    let jobs = Jobs::builder().max_bytes(6_000).build();
    let large = inner(async |_| Ok(Response::new(Body::from(vec![0; 1_600]))));
    assert_fails(&jobs, large, "result_too_large", SERVER_ERROR).await;
    let large = inner(async |_| {
        let response = Response::builder().header("x", "x".repeat(2_000));
        Ok(response.body(Body::empty()).unwrap())
    });
    assert_fails(&jobs, large, "result_too_large", SERVER_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn call_past_its_deadline_fails_the_job() {
    let hangs = inner(async |_| pending::<Result<Response<Body>, Failed>>().await);
    assert_fails(&Jobs::new(), hangs, "timeout", StatusCode::GATEWAY_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn response_body_past_the_deadline_fails_the_job() {
    let jobs = Jobs::builder().job_timeout(Duration::from_secs(5)).build();
    let hangs = inner(async |_| {
        let frames = stream::pending::<Result<Bytes, Failed>>();
        Ok(Response::new(Body::from_stream(frames)))
    });
    assert_fails(&jobs, hangs, "timeout", StatusCode::GATEWAY_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn job_without_a_timeout_has_no_deadline() {
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
fn shutdown_of_the_runtime_fails_its_jobs() {
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
        // The registry works in another runtime.
        let again = jobs.layer().layer(inner(async |_| ok("")));
        let accepted = send(&again, post("/")).await;
        tokio::task::yield_now().await;
        assert_eq!(ended(&again, &accepted).await["status"], "succeeded");
    });
}

#[tokio::test(start_paused = true)]
async fn call_is_dropped_when_its_response_is_ready() {
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

#[tokio::test(start_paused = true)]
async fn timeout_layer_inside_ends_the_job_as_timeout() {
    let jobs = Jobs::new();
    let service = ServiceBuilder::new()
        .layer(jobs.layer())
        .map_err(|error: BoxError| -> BoxError { Box::new(Wrapped(error)) })
        .timeout(Duration::from_secs(1))
        .service(inner(async |_| {
            pending::<()>().await;
            ok("")
        }));
    let accepted = send(&service, post("/")).await;
    let document = ended(&service, &accepted).await;
    assert_eq!(document["status"], "failed");
    assert_eq!(document["error"]["code"], "timeout");
    let result = result(&service, &accepted).await;
    assert_eq!(result.status, StatusCode::GATEWAY_TIMEOUT);
}

/// An error with a source.
#[derive(Debug)]
struct Wrapped(BoxError);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the report failed")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}
