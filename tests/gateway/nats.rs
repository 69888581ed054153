//! The gateway with its jobs in JetStream.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    client::{ended, get, post, result},
    program::{Program, command},
    servers::Servers,
    upstream::Upstream,
};

#[tokio::test]
async fn one_gateway_takes_a_request_another_runs_it_and_a_third_answers() {
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
    let address = format!("http://{}", upstream.address);
    let mut worker = command("gateway")
        .args(["--upstream", &address, "--nats", &url, "--role", "worker"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut lines = BufReader::new(worker.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("UTF-8").expect("a line");
    assert_eq!(
        line,
        format!("Running accepted requests against {address}.")
    );
    let received = upstream.next().await;
    assert_eq!(received.line, "POST /reports?year=2026 HTTP/1.1");
    assert_eq!(received.body, b"the order");
    // Whose request it was has crossed.
    assert_eq!(received.all("x-forwarded-for"), ["127.0.0.1"]);
    received
        .answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmade")
        .await;
    // Who took the request may be gone by then.
    drop(one);
    let document = ended(other.address, &job).await;
    assert_eq!(document["status"], "succeeded", "{document}");
    assert_eq!(result(other.address, &job).await.body, "made");
}
