//! A request that one process accepts, another runs, and every process answers.

use std::{
    future::Future,
    panic::panic_any,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower::Layer;
use tower_accepted::{JobHandle, RequestBody};
use tracing::Span;

use crate::{
    site::{Deployment, layered, options, or_skip, outcome, wait_for_end, work},
    support::{self, Body, Failed, get, inner, ok, post, send},
};

#[tokio::test(flavor = "multi_thread")]
async fn request_runs_elsewhere_and_is_answered_anywhere() {
    let nats = or_skip!(Deployment::start(options()));
    let [web, worker, other] = [nats.jobs().await, nats.jobs().await, nats.jobs().await];
    let never =
        inner(async |_| -> Result<Response<Body>, Failed> { panic!("this process runs no job") });
    let (web, other) = (layered(&web, never.clone()), layered(&other, never));

    let mut request = post("/reports?kind=long");
    let sent = "yes".parse().unwrap();
    request.headers_mut().insert("x-sent", sent);
    *request.body_mut() = Body::from("the body");
    let accepted = send(&web, request).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let queued = send(&other, get(accepted.location())).await;
    assert_eq!(queued.json()["status"], "queued");

    let service = inner(async |request: Request<RequestBody<Body>>| {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let sent = head.headers["x-sent"].to_str().unwrap();
        let text = format!("{} {} {sent} {body:?}", head.method, head.uri);
        let mut response = ok("").unwrap();
        let answered = "there".parse().unwrap();
        response.headers_mut().insert("x-answered", answered);
        *response.body_mut() = Body::from(text);
        Ok::<_, Failed>(response)
    });
    let working = work(&worker, service);
    let end = wait_for_end(&other, accepted.location()).await;
    assert_eq!(outcome(&end.json()), "succeeded", "{end:?}");
    for site in [&web, &other] {
        let result = support::result(site, &accepted).await;
        assert_eq!(result.header("x-answered"), Some("there"));
        assert_eq!(result.text(), "POST /reports?kind=long yes b\"the body\"");
    }
    worker.drain(Duration::from_secs(5)).await;
    working.await.unwrap();
}

#[tokio::test]
async fn worker_makes_spans_and_changes_titles() {
    let nats = or_skip!(Deployment::start(options()));
    let [web, worker] = [nats.jobs().await, nats.jobs().await];
    let never =
        inner(async |_| -> Result<Response<Body>, Failed> { panic!("this process runs no job") });
    let layer = web.layer().title(|_| Some("a report".into()));
    let web = layer.layer(never);
    let accepted = send(&web, post("/reports")).await;
    assert_eq!(accepted.json()["title"], "a report");

    let service = inner(async |_| {
        JobHandle::current().title("the report of 2026");
        ok("")
    });
    let (sender, mut made) = mpsc::unbounded_channel();
    let running = worker
        .worker::<_, Body>(service)
        .make_span(move |head, id, kind| {
            let made = (head.uri.to_string(), id, kind.to_owned());
            sender.send(made).unwrap();
            Span::none()
        });
    let working = tokio::spawn(running.run());
    let end = wait_for_end(&web, accepted.location()).await.json();
    assert_eq!(outcome(&end), "succeeded", "{end:?}");
    assert_eq!(end["title"], "the report of 2026");
    let made = made.recv().await.unwrap();
    assert_eq!(
        made,
        ("/reports".into(), accepted.id(), "POST /reports".into())
    );
    worker.drain(Duration::from_secs(5)).await;
    working.await.unwrap();
}

/// Panics on drop.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the destructor of a payload panics");
    }
}

/// A call that panics when it is polled, and again when it is dropped.
struct PanickingCall;

impl Future for PanickingCall {
    type Output = Result<Response<Body>, Failed>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        panic_any(Bomb);
    }
}

impl Drop for PanickingCall {
    fn drop(&mut self) {
        panic_any(Bomb);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_survives_a_call_that_panics_on_drop() {
    let nats = or_skip!(Deployment::start(options()));
    let [web, worker] = [nats.jobs().await, nats.jobs().await];
    let web = layered(&web, inner(async |_| ok("")));
    let working = work(&worker, inner(|_| PanickingCall));
    for _ in 0..3 {
        let accepted = send(&web, post("/reports")).await;
        let end = wait_for_end(&web, accepted.location()).await;
        assert_eq!(outcome(&end.json()), "panic", "{end:?}");
    }
    worker.drain(Duration::from_secs(5)).await;
    working.await.expect("the worker did not panic");
}
