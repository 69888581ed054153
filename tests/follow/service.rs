//! Tests the layer as a tower service, among other layers and clients.

use std::task::{Context, Poll};

use axum::{Json, Router, routing};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_accepted::follow::{
    FollowAccepted, FollowAcceptedLayer, FollowError, Followed, NotFollowed,
};
use tower_test::mock;

use crate::support::*;

/// A service that panics if it is called before it is ready.
///
/// Its clones are not ready, as those of services with limits.
struct Strict {
    inner: Server,
    is_ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self {
            inner,
            is_ready: false,
        }
    }
}

impl Service<Request<Body>> for Strict {
    type Response = Response<Content>;
    type Error = Broken;
    type Future = <Server as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.is_ready = true;
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.is_ready),
            "called before it was ready"
        );
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn inner_service_is_called_only_when_ready() {
    let (inner, log) = script([
        reply(202).with("operation-location", "/jobs/1"),
        document(json!({ "status": "running" })),
        document(json!({ "status": "succeeded", "resourceLocation": "/r" })),
        reply(200),
        reply(200),
    ]);
    let is_ready = false;
    let mut client = FollowAccepted::new(Strict { inner, is_ready });
    for _ in 0..2 {
        let ready = client.ready().await.expect("ready");
        ready
            .call(request("POST", REPORTS))
            .await
            .expect("a response");
    }
    assert_eq!(log.all().len(), 5);
}

#[tokio::test]
async fn layer_is_ready_when_the_inner_service_is() {
    let (inner, mut handle) = mock::pair::<Request<Body>, Response<Content>>();
    handle.allow(0);
    let mut client = mock::Spawn::new(FollowAcceptedLayer::new().layer(inner));
    assert!(client.poll_ready().is_pending());
    handle.allow(1);
    assert!(client.poll_ready().is_ready());
    handle.send_error("gone");
    assert!(matches!(client.poll_ready(), Poll::Ready(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn response_other_than_202_is_unchanged() {
    for status in [200, 201, 204, 303, 404, 500] {
        let (server, log) = script([reply(status)
            .with("operation-location", "/x")
            .body("as it is")]);
        let answer = post(server).await.expect("a response");
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (status, "as it is")
        );
        assert!(answer.extension::<Followed>().is_none());
        assert!(answer.extension::<NotFollowed>().is_none());
        assert_eq!(log.all().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn response_202_to_head_is_unchanged() {
    let (server, log) = script([reply(202).with("operation-location", "/jobs/1")]);
    let answer = follow(
        &FollowAcceptedLayer::new(),
        server,
        request("HEAD", REPORTS),
    )
    .await;
    assert_eq!(answer.expect("a response").status, StatusCode::ACCEPTED);
    assert_eq!(log.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn original_request_is_unchanged() {
    let (server, log) = script([reply(200)]);
    let mut request = request("POST", REPORTS);
    for name in ["prefer", "if-match", "content-type", "x-any"] {
        let value = "as it was".parse().expect("a value");
        request.headers_mut().insert(name, value);
    }
    let headers = request.headers().clone();
    follow(&FollowAcceptedLayer::new(), server, request)
        .await
        .expect("a response");
    let seen = log.last();
    assert_eq!(seen.headers, headers);
    assert_eq!(seen.body, "what to do");
}

#[tokio::test(start_paused = true)]
async fn layer_composes_with_other_layers() {
    let (server, _) = script([
        reply(202).with("operation-location", "/jobs/1"),
        document(json!({ "status": "running" })),
        document(json!({ "status": "succeeded", "resourceLocation": "/r" })),
        reply(200).body("the report"),
    ]);
    let client = ServiceBuilder::new()
        .buffer(8)
        .concurrency_limit(1)
        .map_err(FollowError::into_boxed)
        .layer(FollowAcceptedLayer::new())
        .timeout(seconds(60))
        .concurrency_limit(1)
        .service(server);
    let answer = client
        .oneshot(request("POST", REPORTS))
        .await
        .expect("a response");
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert_eq!(body, "the report");
}

#[tokio::test(start_paused = true)]
async fn response_future_can_be_spawned() {
    let (server, _) = script([reply(200).body("the report")]);
    let client = ServiceBuilder::new()
        .layer(FollowAcceptedLayer::new())
        .timeout(seconds(5))
        .service(server);
    let answer = tokio::spawn(async move { client.oneshot(request("POST", REPORTS)).await });
    answer.await.expect("no panic").expect("a response");
}

#[tokio::test(start_paused = true)]
async fn service_and_layer_errors_are_distinct() {
    let (server, _) = script([
        broken("refused"),
        reply(202).with("operation-location", "/jobs/1"),
        document(json!({ "status": "failed" })),
    ]);
    let client = FollowAccepted::new(server);
    let error = client
        .clone()
        .oneshot(request("POST", REPORTS))
        .await
        .expect_err("refused");
    assert!(
        matches!(&error, FollowError::Service(Broken(_))),
        "{error:?}"
    );
    let error = client
        .oneshot(request("POST", REPORTS))
        .await
        .expect_err("failed");
    assert!(matches!(error, FollowError::Stopped(_)), "{error:?}");
}

#[tokio::test]
async fn reqwest_works_as_the_client() {
    let accepted = [("operation-location", "/jobs/1"), ("retry-after", "0")];
    let ended = json!({ "status": "succeeded", "resourceLocation": "/reports/1" });
    let app = Router::new()
        .route(
            "/reports",
            routing::post(move || async move { (StatusCode::ACCEPTED, accepted) }),
        )
        .route("/jobs/1", routing::get(move || async move { Json(ended) }))
        .route("/reports/1", routing::get(|| async { "the report" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!(
        "http://{}/reports",
        listener.local_addr().expect("an address")
    );
    tokio::spawn(async move { axum::serve(listener, app).await });

    let redirects = reqwest::redirect::Policy::none();
    let client = reqwest::Client::builder()
        .redirect(redirects)
        .build()
        .expect("a client");
    let client = FollowAccepted::new(service_fn(move |request: Request<reqwest::Body>| {
        let client = client.clone();
        async move {
            let response = client.execute(request.try_into()?).await?;
            Ok::<_, reqwest::Error>(Response::<reqwest::Body>::from(response))
        }
    }));
    let request = Request::post(url)
        .body("all of March".into())
        .expect("a request");
    let response = client.oneshot(request).await.expect("a response");
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    assert_eq!(body, "the report");
}

#[tokio::test(start_paused = true)]
async fn relative_references_of_a_result_keep_their_meaning() {
    for (result, expected) in [
        ("/jobs/1/result?x", "/reports/42"),
        // The caller knows the URI of its own request.
        ("/reports", "../../reports/42"),
    ] {
        let (server, _) = script([
            reply(202).with("operation-location", "/jobs/1"),
            document(json!({ "status": "succeeded", "resourceLocation": result })),
            reply(201)
                .with("location", "../../reports/42")
                .with("link", "<https://b.example/>, </c>"),
        ]);
        let answer = post(server).await.expect("a response");
        assert_eq!(answer.headers["location"], expected);
        assert_eq!(answer.headers["link"], "<https://b.example/>, </c>");
    }
}
