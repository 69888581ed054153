//! The gateway with few file descriptors.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    client::{get, open, post, raw, read_until, result},
    program::Program,
    upstream::{Received, Upstream},
};

/// The limit of the gateway's file descriptors in these tests.
const DESCRIPTORS: u32 = 256;

/// Guards against a hang; no test waits for it.
const GUARD: Duration = Duration::from_secs(60);

async fn state(gateway: &Program, job: &str) -> String {
    let answer = timeout(GUARD, get(gateway.address, job)).await;
    let document = answer.expect("the monitor answers").json();
    document["status"].as_str().expect("a status").to_owned()
}

#[tokio::test]
async fn jobs_beyond_the_descriptors_are_queued() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::limited(upstream.address, DESCRIPTORS, &["--always"]).await;
    let mut jobs = Vec::new();
    for _ in 0..1000 {
        jobs.push(post(gateway.address, "/reports", "").await.job());
    }
    // Half of what is not in reserve.
    let mut running: Vec<Received> = Vec::new();
    for _ in 0..96 {
        let received = timeout(GUARD, upstream.next()).await;
        running.push(received.expect("a call"));
    }
    assert_eq!(state(&gateway, &jobs[0]).await, "running");
    assert_eq!(state(&gateway, &jobs[999]).await, "queued");

    // A request that cannot become a job does not wait for jobs.
    let address = gateway.address;
    let read = tokio::spawn(async move { get(address, "/read").await });
    let received = timeout(GUARD, upstream.next()).await.expect("a call");
    assert_eq!(received.line, "GET /read HTTP/1.1");
    received.ok("read").await;
    assert_eq!(read.await.expect("no panic").body, "read");

    // Each job that ends makes room for the next.
    let mut ended = 0;
    while ended < 200 {
        for received in running.drain(..) {
            received.ok("report").await;
            ended += 1;
            let next = timeout(GUARD, upstream.next()).await;
            let next = next.expect("a call");
            assert_eq!(next.line, "POST /reports HTTP/1.1");
            next.ok("report").await;
            ended += 1;
        }
        for _ in 0..96.min(1000 - ended) {
            let received = timeout(GUARD, upstream.next()).await;
            running.push(received.expect("a call"));
        }
    }
    let report = timeout(GUARD, result(gateway.address, &jobs[0])).await;
    assert_eq!(report.expect("the result").body, "report");
}

#[tokio::test]
async fn idle_connections_keep_no_client_out() {
    let upstream = Upstream::start().await;
    let gateway = Program::limited(upstream.address, DESCRIPTORS, &["--health", "/"]).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let connected = TcpStream::connect(gateway.address).await;
        idle.push(connected.expect("a listener"));
    }
    let healthy = timeout(GUARD, get(gateway.address, "/healthz")).await;
    assert_eq!(healthy.expect("an answer").body, "ok\n");
    drop(idle);
}

#[tokio::test]
async fn new_clients_beyond_the_limit_are_all_answered() {
    let upstream = Upstream::start().await;
    let gateway = Program::limited(upstream.address, 64, &["--health", "/"]).await;
    // A quarter of the 48 descriptors that are not in reserve, twice.
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(open(gateway.address, b"").await);
    }
    // The clients think before they send.
    sleep(Duration::from_millis(100)).await;
    let ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for client in &mut clients {
        client.write_all(ask).await.expect("sent");
    }
    for mut client in clients {
        let answer = timeout(GUARD, read_until(&mut client, "ok\n")).await;
        assert!(answer.expect("an answer").starts_with("HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn client_that_stops_reading_is_disconnected() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--idle-secs", "1"]).await;
    let silent = open(gateway.address, b"GET /film HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut received = upstream.next().await;
    received
        .write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        .await;
    let ended = timeout(GUARD, received.flood()).await;
    ended.expect("the gateway closes the connection");
    drop(silent);
}

#[tokio::test]
async fn client_that_stops_sending_is_disconnected() {
    let upstream = Upstream::start().await;
    let flags = ["--idle-secs", "1", "--max-body", "1"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    for method in ["GET", "POST"] {
        let stalls = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab");
        let answer = timeout(GUARD, raw(gateway.address, stalls.as_bytes())).await;
        let answer = answer.expect("the gateway closes the connection");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{method}: {answer}");
    }
}

#[tokio::test]
async fn stalled_request_keeps_no_call_from_jobs() {
    let mut upstream = Upstream::start().await;
    let flags = ["--max-calls", "1", "--max-body", "1", "--after-ms", "0"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let stalls = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab";
    let stalled = open(gateway.address, stalls).await;
    // Its connection is accepted after the stalled one.
    let job = post(gateway.address, "/reports", "").await.job();
    let received = timeout(GUARD, upstream.next()).await;
    received.expect("a call").ok("report").await;
    let report = timeout(GUARD, result(gateway.address, &job)).await;
    assert_eq!(report.expect("the result").body, "report");
    drop(stalled);
}
