//! Inner services that are not ready: the layer always is, and each call waits.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_accepted::{Accepted, Jobs, RequestBody, When};
use tower_test::mock;

use crate::support::*;

type Inner = mock::Mock<Request<RequestBody<Body>>, Response<Body>>;
type Handle = mock::Handle<Request<RequestBody<Body>>, Response<Body>>;

/// Creates a service behind the layer, ready for as many calls as the handle allows, at first none.
fn saturated(when: When) -> (Accepted<Inner>, Handle) {
    let (inner, mut handle) = mock::pair();
    handle.allow(0);
    (Jobs::new().layer().when(when).layer(inner), handle)
}

async fn status_of(service: &Accepted<Inner>, accepted: &Answer) -> String {
    let document = send(service, get(accepted.location())).await.json();
    document["status"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn saturated_service_delays_no_202_and_no_monitor() {
    let (service, _handle) = saturated(When::Always);
    let start = Instant::now();
    let accepted = send(&service, post("/")).await;
    let at = accepted.location();
    let result = format!("{at}/result");
    let cancel = format!("{at}/cancel");
    for (method, path, status) in [
        ("GET", at, 200),
        ("HEAD", at, 200),
        ("OPTIONS", at, 204),
        ("GET", &result, 202),
        ("GET", "/jobs/x", 404),
        ("PUT", at, 405),
        ("POST", &cancel, 200),
        ("DELETE", at, 204),
    ] {
        let answer = send(&service, request(method, path)).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn job_is_queued_until_the_service_is_called() {
    let (service, mut handle) = saturated(When::Always);
    let request = Request::post("/reports?month=11").header("x-user", "me");
    let accepted = send(&service, request.body(Body::from("{}")).unwrap()).await;
    sleep(Duration::from_secs(60)).await;
    let queued = send(&service, get(accepted.location())).await.json();
    assert_eq!(
        (&queued["status"], queued.get("startedAt")),
        (&"queued".into(), None)
    );

    handle.allow(1);
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.uri(), "/reports?month=11");
    assert_eq!(request.headers()["x-user"], "me");
    let body = request.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "{}");
    let running = send(&service, get(accepted.location())).await.json();
    assert_eq!(running["status"], "running");
    assert!(
        running["startedAt"].as_str() > running["createdAt"].as_str(),
        "{running}"
    );

    respond.send_response(Response::new(Body::from("at last")));
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    assert_eq!(result(&service, &accepted).await.text(), "at last");
}

#[tokio::test(start_paused = true)]
async fn one_permit_starts_one_job() {
    let (service, mut handle) = saturated(When::Always);
    let mut accepted = Vec::new();
    for _ in 0..3 {
        accepted.push(send(&service, post("/")).await);
    }
    for left in (0..3).rev() {
        handle.allow(1);
        let (_request, respond) = handle.next_request().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let mut queued = 0;
        for accepted in &accepted {
            queued += usize::from(status_of(&service, accepted).await == "queued");
        }
        assert_eq!(queued, left);
        respond.send_response(Response::new(Body::empty()));
    }
    for accepted in &accepted {
        assert_eq!(ended(&service, accepted).await["status"], "succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn inline_call_waits_for_readiness() {
    for (when, request) in [(When::Never, post("/")), (When::Always, get("/"))] {
        let (service, mut handle) = saturated(when);
        let mut call = Box::pin(send(&service, request));
        let hour = Duration::from_secs(3600);
        timeout(hour, &mut call).await.expect_err("not ready");
        handle.allow(1);
        let serve = async {
            let (_request, respond) = handle.next_request().await.unwrap();
            respond.send_response(Response::new(Body::from("inline")));
        };
        let (answer, ()) = tokio::join!(call, serve);
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "inline"));
    }
}

#[tokio::test(start_paused = true)]
async fn wait_for_readiness_counts_toward_the_delay() {
    let (service, mut handle) = saturated(When::After(Duration::from_secs(5)));
    let start = Instant::now();
    let accepted = send(&service, post("/")).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(accepted.json()["status"], "queued");
    handle.allow(1);
    let (_request, respond) = handle.next_request().await.unwrap();
    assert_eq!(status_of(&service, &accepted).await, "running");
    respond.send_response(Response::new(Body::empty()));
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn readiness_error_fails_the_job() {
    let (service, mut handle) = saturated(When::Always);
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    handle.send_error(Failed);
    let document = ended(&service, &accepted).await;
    assert_eq!(
        (&document["status"], &document["error"]["code"]),
        (&"failed".into(), &"inner_error".into())
    );
    assert_eq!(document.get("startedAt"), None);
    let result = result(&service, &accepted).await;
    assert_eq!(result.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!result.text().contains("sesame"), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn readiness_error_is_returned_from_an_inline_call() {
    for when in [When::Never, When::After(Duration::from_secs(5))] {
        let (service, mut handle) = saturated(when);
        handle.send_error(Failed);
        let error = service.oneshot(post("/")).await.expect_err("not ready");
        assert!(error.is::<Failed>());
    }
}

#[tokio::test(start_paused = true)]
async fn job_canceled_in_the_queue_is_never_called() {
    let (service, mut handle) = saturated(When::Always);
    let canceled = send(&service, post("/canceled")).await;
    let deleted = send(&service, post("/deleted")).await;
    let waits = send(&service, post("/waits")).await;
    let cancel = format!("{}/cancel", canceled.location());
    let document = send(&service, post(&cancel)).await.json();
    assert_eq!(document["status"], "canceled");
    let answer = send(&service, request("DELETE", deleted.location())).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);

    handle.allow(3);
    let (request, respond) = handle.next_request().await.unwrap();
    assert_eq!(request.uri(), "/waits");
    respond.send_response(Response::new(Body::empty()));
    ended(&service, &waits).await;
    drop(service);
    assert!(handle.next_request().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn permit_is_released_however_the_job_ends() {
    let jobs = Jobs::builder().job_timeout(Duration::from_secs(30)).build();
    let service = ServiceBuilder::new()
        .layer(jobs.layer())
        .concurrency_limit(1)
        .service(inner(async |request| {
            match request.uri().path() {
                "/panics" => panic!("on purpose"),
                "/fails" => return Err(Failed),
                "/hangs" => sleep(Duration::from_secs(3600)).await,
                _ => {}
            }
            ok("done")
        }));
    let canceled = send(&service, post("/hangs")).await;
    sleep(Duration::from_secs(1)).await;
    let mut accepted = Vec::new();
    for path in ["/panics", "/fails", "/hangs", "/"] {
        accepted.push(send(&service, post(path)).await);
    }
    send(&service, post(&format!("{}/cancel", canceled.location()))).await;
    let mut ends = Vec::new();
    for accepted in &accepted {
        let document = ended(&service, accepted).await;
        let end = document["error"]["code"].as_str().unwrap_or("none");
        ends.push(end.to_owned());
    }
    // The job that hangs times out, and so does the last one, in the queue behind it.
    assert_eq!(ends[..3], ["panic", "inner_error", "timeout"]);
    let last = send(&service, post("/")).await;
    assert_eq!(ended(&service, &last).await["status"], "succeeded");
}
