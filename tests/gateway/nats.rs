//! The gateway with its jobs in JetStream.

use std::net::SocketAddr;

use http::StatusCode;

use crate::{
    client::{ended, get, post, result},
    program::Program,
    servers::Servers,
    upstream::Upstream,
};

/// Starts a worker in front of `upstream`, and checks its first line.
async fn start_worker(upstream: &Upstream, flags: &[&str]) -> Program {
    let address = format!("http://{}", upstream.address);
    let mut all = vec!["--upstream", &address, "--role", "worker"];
    all.extend(flags);
    let mut worker = Program::spawn("accepted-gateway", &all);
    let line = worker.line().await.expect("a line");
    assert_eq!(
        line,
        format!("Running accepted requests against {address}.")
    );
    worker
}

#[tokio::test]
async fn gateways_accept_run_and_answer_together() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let mut upstream = Upstream::start().await;
    let url = servers.url();
    let flags = ["--nats", &url, "--always", "--role", "web"];
    let one = Program::gateway(upstream.address, &flags).await;
    let other = Program::gateway(upstream.address, &flags).await;
    let job = post(one.address, "/reports?year=2026", "the order")
        .await
        .job();
    assert_eq!(get(other.address, &job).await.json()["status"], "queued");
    let _worker = start_worker(&upstream, &["--nats", &url]).await;
    let received = upstream.next().await;
    assert_eq!(received.line, "POST /reports?year=2026 HTTP/1.1");
    assert_eq!(received.body, b"the order");
    // The queue carries the client's address to the worker.
    assert_eq!(received.all("x-forwarded-for"), ["127.0.0.1"]);
    received
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmade")
        .await;
    // The gateway that accepted the request is no longer needed.
    drop(one);
    let document = ended(other.address, &job).await;
    assert_eq!(document["status"], "succeeded", "{document}");
    assert_eq!(result(other.address, &job).await.body, "made");
}

#[tokio::test]
async fn worker_serves_its_health_resources() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let mut upstream = Upstream::start().await;
    let url = servers.url();
    let flags = ["--nats", &url, "--always", "--role", "web"];
    let web = Program::gateway(upstream.address, &flags).await;
    let flags = ["--nats", &url, "--health", "/", "--listen", "127.0.0.1:0"];
    let mut worker = start_worker(&upstream, &flags).await;
    let line = worker.line().await.expect("a line");
    let address = line
        .strip_prefix("Health resources at http://")
        .and_then(|rest| rest.strip_suffix('.'));
    let address: SocketAddr = address.expect("a prefix").parse().expect("an address");
    let job = post(web.address, "/reports", "").await.job();
    let received = upstream.next().await;
    let status = async |path| get(address, path).await.status;
    assert_eq!(status("/healthz").await, StatusCode::OK);
    assert_eq!(status("/readyz").await, StatusCode::OK);
    assert_eq!(status("/jobs").await, StatusCode::NOT_FOUND);

    worker.signal("TERM").await;
    worker.logged("shutting down").await;
    assert_eq!(status("/healthz").await, StatusCode::OK);
    assert_eq!(status("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    received.ok("report").await;
    assert_eq!(worker.ended().await.code(), Some(0));
    assert_eq!(ended(web.address, &job).await["status"], "succeeded");
}
