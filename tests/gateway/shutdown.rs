//! The shutdown of the gateway.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::{io::AsyncWriteExt, spawn, time::timeout};

use crate::{
    client::{ended, get, open, post, read_until, result},
    program::Program,
    upstream::Upstream,
};

async fn get_path(server: SocketAddr, path: String) -> crate::client::Answer {
    get(server, &path).await
}

#[tokio::test]
async fn sigterm_waits_for_jobs_and_serves_their_monitor() {
    let mut upstream = Upstream::start().await;
    let mut gateway = Program::gateway(upstream.address, &["--always"]).await;
    let mut kept_open = open(gateway.address, b"GET /jobs/0 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut kept_open, "}").await;
    let job = post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    gateway.signal("TERM").await;
    gateway.logged("shutting down").await;

    // Only the monitor still answers, on old and new connections.
    let poll = format!("GET {job} HTTP/1.1\r\nHost: a\r\n\r\n");
    kept_open
        .write_all(poll.as_bytes())
        .await
        .expect("still open");
    let answer = read_until(&mut kept_open, "}").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(get(gateway.address, &job).await.is_unfinished());
    for answer in [
        get(gateway.address, "/").await,
        post(gateway.address, "/", "").await,
    ] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.header("retry-after").is_some());
    }

    received.ok("report").await;
    gateway.logged("all jobs ended").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_waits_for_clients_that_come_back() {
    let mut upstream = Upstream::start().await;
    let mut gateway = Program::gateway(upstream.address, &["--always"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    gateway.signal("TERM").await;
    gateway.logged("shutting down").await;
    let told = get(gateway.address, &job).await;
    assert_eq!(told.header("retry-after"), Some("1"));
    received.ok("report").await;
    ended(gateway.address, &job).await;
    assert_eq!(result(gateway.address, &job).await.body, "report");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn ctrl_c_ends_an_idle_gateway_at_once() {
    let upstream = Upstream::start().await;
    let flags = ["--drain-secs", "86400"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    // The shutdown does not wait for connections without a pending request.
    let _silent = open(gateway.address, b"").await;
    let mut idle = open(gateway.address, b"GET /jobs/0 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut idle, "}").await;
    gateway.signal("INT").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn drain_secs_limits_the_wait_for_jobs() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--drain-secs", "1"];
    let mut gateway = Program::gateway(upstream.address, &flags).await;
    post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    gateway.signal("TERM").await;
    gateway.logged("cut jobs at the drain deadline").await;
    received.hung_up().await;
    assert_eq!(gateway.ended().await.code(), Some(3), "a job was cut");
}

#[tokio::test]
async fn shutdown_sends_an_open_response_to_its_end() {
    let mut upstream = Upstream::start().await;
    let mut gateway = Program::gateway(upstream.address, &[]).await;
    let answer = spawn(get_path(gateway.address, "/slow".to_owned()));
    let mut received = upstream.next().await;
    received
        .write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nha")
        .await;
    gateway.signal("TERM").await;
    gateway.logged("all jobs ended").await;
    received.answer("lf+half").await;
    assert_eq!(answer.await.expect("no panic").body, "half+hal");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn endless_response_is_cut_at_the_drain_deadline() {
    let mut upstream = Upstream::start().await;
    let mut gateway = Program::gateway(upstream.address, &["--drain-secs", "1"]).await;
    let mut client = open(gateway.address, b"GET /clock HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut received = upstream.next().await;
    received
        .write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n0\r\n")
        .await;
    read_until(&mut client, "\r\n\r\n1\r\n0\r\n").await;
    gateway.signal("TERM").await;
    gateway
        .logged("cut open responses at the drain deadline")
        .await;
    received.hung_up().await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn second_signal_ends_the_gateway_at_once() {
    let mut upstream = Upstream::start().await;
    let mut gateway = Program::gateway(upstream.address, &["--always"]).await;
    post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    gateway.signal("INT").await;
    gateway.logged("shutting down").await;
    gateway.signal("INT").await;
    gateway.logged("second signal: ended").await;
    received.hung_up().await;
    assert_eq!(gateway.ended().await.code(), Some(1));
}

#[tokio::test]
async fn stalled_upload_is_no_job_at_a_shutdown() {
    let upstream = Upstream::start().await;
    for drain_secs in ["0", "86400"] {
        let flags = ["--always", "--drain-secs", drain_secs];
        let mut gateway = Program::gateway(upstream.address, &flags).await;
        // The gateway asks for the body, so that the upload has begun.
        let stalls = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\
            Expect: 100-continue\r\n\r\n";
        let mut stalled = open(gateway.address, stalls).await;
        read_until(&mut stalled, "100 Continue\r\n\r\n").await;
        gateway.signal("TERM").await;
        gateway.logged("all jobs ended").await;
        assert_eq!(gateway.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn half_sent_request_does_not_delay_a_shutdown() {
    let upstream = Upstream::start().await;
    for half in [
        "GET / HTTP/1.1\r\nHos",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab",
    ] {
        let flags = ["--drain-secs", "86400"];
        let gateway = Program::gateway(upstream.address, &flags).await;
        let stalled = open(gateway.address, half.as_bytes()).await;
        // Accepted after the stalled one.
        get(gateway.address, "/jobs/0").await;
        gateway.signal("TERM").await;
        let ended = timeout(Duration::from_secs(60), gateway.ended()).await;
        assert_eq!(ended.expect("the shutdown ends").code(), Some(0));
        drop(stalled);
    }
}
