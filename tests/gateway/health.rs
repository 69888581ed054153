//! The health resources, `/healthz` and `/readyz`.

use http::StatusCode;
use tokio::spawn;

use crate::{
    client::{Answer, get, post, request, send},
    program::Program,
    upstream::Upstream,
};

fn assert_plain(answer: &Answer, status: StatusCode, text: &str) {
    assert_eq!(answer.status, status);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.body, text);
}

#[tokio::test]
async fn health_resources_answer_under_the_prefix() {
    let upstream = Upstream::start().await;
    for (flag, prefix) in [("/", ""), ("/-/internal", "/-/internal")] {
        let gateway = Program::gateway(upstream.address, &["--health", flag]).await;
        for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
            let path = format!("{prefix}{path}");
            assert_plain(&get(gateway.address, &path).await, StatusCode::OK, text);

            let head = request("HEAD", &path).body("".into()).expect("a request");
            assert_plain(&send(gateway.address, head).await, StatusCode::OK, "");

            let refused = post(gateway.address, &path, "").await;
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        }
    }
}

#[tokio::test]
async fn readyz_turns_503_while_a_job_drains() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--health", "/"];
    let mut gateway = Program::gateway(upstream.address, &flags).await;
    post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    let ready = get(gateway.address, "/readyz").await;
    assert_plain(&ready, StatusCode::OK, "ready\n");

    gateway.signal("TERM").await;
    gateway.logged("shutting down").await;
    let ready = get(gateway.address, "/readyz").await;
    assert_plain(&ready, StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    let healthy = get(gateway.address, "/healthz").await;
    assert_plain(&healthy, StatusCode::OK, "ok\n");

    received.ok("report").await;
    gateway.logged("all jobs ended").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn other_health_paths_are_forwarded() {
    let mut upstream = Upstream::start().await;
    for (flags, path) in [
        (&[][..], "/healthz"),
        (&[], "/readyz"),
        (&["--health", "/-"], "/readyz"),
        (&["--health", "/-"], "/-/healthz/more"),
        (&["--health", "/-"], "/-/"),
    ] {
        let gateway = Program::gateway(upstream.address, flags).await;
        let answer = spawn(async move { get(gateway.address, path).await });
        upstream.next().await.ok("the server's own").await;
        assert_eq!(answer.await.expect("no panic").body, "the server's own");
    }
}
