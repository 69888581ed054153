//! Tests this crate's own layer with the default dialect.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_accepted::{
    AcceptedLayer, JobHandle, Jobs, RequestBody,
    follow::{FollowAcceptedLayer, Followed, Observer, Reason},
};

use crate::support::*;

type Accepted = Request<RequestBody<Body>>;

/// A slow inner service that returns the request's body.
async fn echo(request: Accepted) -> Result<Response<Content>, Broken> {
    sleep(Duration::from_millis(2500)).await;
    let body = request
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", 7.into());
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header("content-type", "application/pdf")
        .header("x-many", "1")
        .header("x-many", "2");
    Ok(response.body(body).expect("a response"))
}

#[tokio::test(start_paused = true)]
async fn response_equals_that_of_a_synchronous_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let server = AcceptedLayer::new().layer(service_fn(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        echo(request)
    }));
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.text(), "what to do");
    assert_eq!(answer.header("content-type"), Some("application/pdf"));
    let many: Vec<_> = answer.headers.get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2"]);
    let trailers = answer.trailers.as_ref().expect("trailers");
    assert_eq!(trailers["x-sum"], "7");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let followed: Followed = answer.extension().expect("it was followed");
    assert!(
        followed.monitor.path().starts_with("/jobs/"),
        "{followed:?}"
    );
    assert_eq!(
        followed.uri.path(),
        format!("{}/result", followed.monitor.path())
    );
}

#[tokio::test(start_paused = true)]
async fn error_response_of_a_job_is_a_response() {
    let server = AcceptedLayer::new().layer(service_fn(|_: Accepted| async {
        let response = Response::builder().status(StatusCode::UNPROCESSABLE_ENTITY);
        Ok::<_, Broken>(
            response
                .body(content("no such report"))
                .expect("a response"),
        )
    }));
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.text(), "no such report");
}

#[tokio::test(start_paused = true)]
async fn result_503_is_not_the_monitors() {
    let server = AcceptedLayer::new().layer(service_fn(|_: Accepted| async {
        let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        let response = response.header("retry-after", "120");
        Ok::<_, Broken>(response.body(content("not today")).expect("a response"))
    }));
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.text(), "not today");
}

#[tokio::test(start_paused = true)]
async fn error_has_the_cause_of_a_failed_job() {
    let server = AcceptedLayer::new().layer(service_fn(|_: Accepted| async {
        Err::<Response<Content>, _>(Broken("secret detail"))
    }));
    let error = failure(post(server).await);
    assert!(matches!(error.reason(), Reason::Failed), "{error:?}");
    let document = error.document().expect("a document");
    assert_eq!(document.error_code(), Some("inner_error"));
    let text = error.to_string();
    assert!(text.starts_with("the job failed: inner_error: "), "{text}");
    assert!(
        !text.contains("/jobs/"),
        "the monitor's URI may be a secret"
    );
    assert!(error.monitor().path().starts_with("/jobs/"));
}

#[tokio::test(start_paused = true)]
async fn canceled_job_is_an_error() {
    let jobs = Jobs::new();
    let (sender, mut started) = mpsc::unbounded_channel();
    let server = jobs.layer().layer(service_fn(move |_: Accepted| {
        let sender = sender.clone();
        async move {
            let id = JobHandle::current().id().expect("an accepted job");
            sender.send(id).expect("a listener");
            future::pending::<Result<Response<Content>, Broken>>().await
        }
    }));
    let following = tokio::spawn(post(server));
    let id = started.recv().await.expect("a job");
    jobs.cancel(id).await.expect("a store").expect("a job");
    let error = failure(following.await.expect("no panic"));
    assert!(matches!(error.reason(), Reason::Canceled), "{error:?}");
    assert_eq!(error.to_string(), "the job was canceled");
}

#[tokio::test(start_paused = true)]
async fn request_without_a_202_passes_through() {
    let server = AcceptedLayer::new().layer(service_fn(|request: Accepted| async move {
        let body = request
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        Ok::<_, Broken>(Response::new(content(body)))
    }));
    let request = request("GET", REPORTS);
    let layer = FollowAcceptedLayer::new();
    let answer = follow(&layer, server, request).await.expect("a response");
    assert_eq!(answer.text(), "what to do");
    assert!(answer.extension::<Followed>().is_none());
}

#[tokio::test(start_paused = true)]
async fn router_works_as_the_client() {
    async fn render(body: Bytes) -> (StatusCode, Bytes) {
        sleep(Duration::from_secs(20)).await;
        (StatusCode::CREATED, body)
    }
    let app = Router::new()
        .route("/reports", routing::post(render))
        .layer(AcceptedLayer::new());
    let client = FollowAcceptedLayer::new().layer(app);
    let request = Request::post("/reports").body(axum::body::Body::from("all of them"));
    let response = client
        .oneshot(request.expect("a request"))
        .await
        .expect("a response");
    assert_eq!(response.status(), StatusCode::CREATED);
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert_eq!(body, "all of them");
}

#[tokio::test(start_paused = true)]
async fn progress_of_a_job_is_observed() {
    let server = AcceptedLayer::new().layer(service_fn(|_: Accepted| async {
        let job = JobHandle::current();
        for page in 1_u8..=4 {
            job.progress(f64::from(page) / 4.0);
            job.message(format!("page {page} of 4"));
            sleep(Duration::from_secs(5)).await;
        }
        Ok::<_, Broken>(Response::new(content("done")))
    }));
    let (sender, mut updates) = mpsc::unbounded_channel();
    let mut request = request("POST", REPORTS);
    request
        .extensions_mut()
        .insert(Observer::new(move |update| {
            let _ = sender.send(update);
        }));
    let layer = FollowAcceptedLayer::new();
    follow(&layer, server, request).await.expect("a response");
    let mut seen = Vec::new();
    while let Ok(update) = updates.try_recv() {
        let status = update
            .document
            .as_ref()
            .and_then(|document| document.status());
        seen.push((
            update.percent,
            update.message.clone(),
            status.map(str::to_owned),
        ));
    }
    let first = seen.first().expect("an update from the 202");
    assert_eq!(first, &(None, None, Some("queued".to_owned())));
    let last = seen.last().expect("an update from the end");
    let message = Some("page 4 of 4".to_owned());
    assert_eq!(last, &(Some(100.0), message, Some("succeeded".to_owned())));
    assert!(seen.len() >= 4, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn dropped_future_cancels_its_job_if_enabled() {
    let jobs = Jobs::new();
    let canceled = Arc::new(Notify::new());
    let canceling = canceled.clone();
    let server = jobs.layer().layer(service_fn(move |_: Accepted| {
        let canceling = canceling.clone();
        async move {
            JobHandle::current().canceled().await;
            canceling.notify_one();
            future::pending::<Result<Response<Content>, Broken>>().await
        }
    }));
    let (sender, mut updates) = mpsc::unbounded_channel();
    let layer = FollowAcceptedLayer::new()
        .cancel_on_drop(seconds(5))
        .on_update(move |update| sender.send(update).expect("a listener"));
    let following =
        tokio::spawn(async move { follow(&layer, server, request("POST", REPORTS)).await });
    updates.recv().await.expect("a 202");
    following.abort();
    canceled.notified().await;
}

/// A monitor cannot send these statuses as its own.
#[tokio::test(start_paused = true)]
async fn status_of_the_service_is_restored() {
    for status in [200, 202, 206, 304, 307, 308, 503] {
        let server = AcceptedLayer::new().layer(service_fn(move |_: Accepted| async move {
            let response = Response::builder().status(status);
            Ok::<_, Broken>(response.body(content("the report")).expect("a response"))
        }));
        let answer = post(server).await.expect("a response");
        assert_eq!(answer.status.as_u16(), status);
    }
}

/// The caller of a PUT would take it for the tag of what it has put.
#[tokio::test(start_paused = true)]
async fn etag_of_the_monitor_is_removed() {
    for etag in [None, Some("\"v7\"")] {
        let server = AcceptedLayer::new().layer(service_fn(move |_: Accepted| async move {
            let mut response = Response::new(content("the report"));
            if let Some(etag) = etag {
                let etag = etag.parse().expect("a value");
                response.headers_mut().insert("etag", etag);
            }
            Ok::<_, Broken>(response)
        }));
        let answer = post(server).await.expect("a response");
        assert_eq!(answer.header("etag"), etag);
    }
}
