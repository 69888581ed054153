//! The gateway with its jobs in a SQLite file.

use http::StatusCode;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    client::{ended, get, post, result},
    program::{Program, command},
    upstream::Upstream,
};

const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmade";

/// Runs a command of the gateway, and returns its exit code and its output.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut gateway: Command = command("accepted-gateway");
    let output = gateway.args(arguments).output().await.expect("a process");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn next_gateway_runs_what_a_killed_one_accepted() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("jobs.db");
    let file = file.to_str().expect("a path");
    let mut upstream = Upstream::start().await;
    let flags = ["--store", file, "--always", "--max-calls", "1"];
    let one = Program::gateway(upstream.address, &flags).await;
    let running = post(one.address, "/reports?n=1", "the order").await.job();
    let received = upstream.next().await;
    // It waits for the only call, so it has not begun.
    let queued = post(one.address, "/reports?n=2", "another").await.job();

    let id = queued.rsplit('/').next().expect("an id");
    let (code, list) = run(&["jobs", "list", "--store", file]).await;
    assert_eq!(code, Some(0), "{list}");
    assert!(list.contains(id) && list.contains("queued"), "{list}");

    // Dropped, and so killed.
    drop(one);
    drop(received);
    let other = Program::gateway(upstream.address, &flags).await;
    let received = upstream.next().await;
    assert_eq!(received.line, "POST /reports?n=2 HTTP/1.1");
    assert_eq!(received.body, b"another");
    received.answer(DONE).await;
    let document = ended(other.address, &queued).await;
    assert_eq!(document["status"], "succeeded", "{document}");
    assert_eq!(result(other.address, &queued).await.body, "made");
    let document = ended(other.address, &running).await;
    assert_eq!(document["error"]["code"], "lost", "{document}");

    let copy = directory.path().join("copy.db");
    let copy = copy.to_str().expect("a path");
    let (code, text) = run(&["backup", "--store", file, copy]).await;
    assert_eq!(code, Some(0), "{text}");
    drop(other);
    let flags = ["--store", copy, "--always"];
    let restored = Program::gateway(upstream.address, &flags).await;
    assert_eq!(result(restored.address, &queued).await.body, "made");
}

#[tokio::test]
async fn commands_show_and_cancel_jobs_of_a_running_gateway() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("jobs.db");
    let file = file.to_str().expect("a path");
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--store", file, "--always"]).await;
    let job = post(gateway.address, "/reports", "the order").await.job();
    let received = upstream.next().await;
    let id = job.rsplit('/').next().expect("an id");
    let (code, shown) = run(&["jobs", "show", "--store", file, id]).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(id), "{shown}");
    let (code, canceled) = run(&["jobs", "cancel", "--store", file, id]).await;
    assert_eq!(code, Some(0), "{canceled}");
    received.hung_up().await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["status"], "canceled", "{document}");
    assert_eq!(get(gateway.address, &job).await.status, StatusCode::OK);

    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let (code, _) = run(&["jobs", "show", "--store", file, unknown]).await;
    assert_eq!(code, Some(1));
    let (code, _) = run(&["jobs", "show", "--store", file, "short"]).await;
    assert_eq!(code, Some(2));
    let missing = directory.path().join("missing.db");
    let missing = missing.to_str().expect("a path");
    let (code, _) = run(&["jobs", "list", "--store", missing]).await;
    assert_eq!(code, Some(1));
    assert!(!std::path::Path::new(missing).exists());
}

#[cfg(feature = "nats")]
#[tokio::test]
async fn jobs_are_in_one_store() {
    let flags = ["--store", "jobs.db", "--nats", "nats://127.0.0.1:1"];
    let (code, text) = run(&flags).await;
    assert_eq!(code, Some(2));
    assert!(text.contains("cannot be used with"), "{text}");
}
