//! The gateway with its jobs in a SQLite file.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    client::{ended, get, post, request, result, send},
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

/// Runs a command that prints JSON, and returns the object of each line.
async fn json(arguments: &[&str]) -> Vec<Value> {
    let (code, text) = run(arguments).await;
    assert_eq!(code, Some(0), "{text}");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn path_in(directory: &TempDir, name: &str) -> String {
    let path = directory.path().join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn next_gateway_runs_what_a_killed_one_accepted() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let flags = ["--store", &file, "--always", "--max-calls", "1"];
    let one = Program::gateway(upstream.address, &flags).await;
    let running = post(one.address, "/reports?n=1", "the order").await.job();
    let received = upstream.next().await;
    // It waits for the only call, so it has not begun.
    let queued = post(one.address, "/reports?n=2", "another").await.job();

    let id = queued.rsplit('/').next().expect("an id");
    let (code, list) = run(&["jobs", "list", "--store", &file]).await;
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

    let copy = path_in(&directory, "copy.db");
    let (code, text) = run(&["backup", "--store", &file, &copy]).await;
    assert_eq!(code, Some(0), "{text}");
    drop(other);
    let flags = ["--store", &copy, "--always"];
    let restored = Program::gateway(upstream.address, &flags).await;
    assert_eq!(result(restored.address, &queued).await.body, "made");
}

#[tokio::test]
async fn commands_show_and_cancel_jobs_of_a_running_gateway() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--store", &file, "--always"]).await;
    let job = post(gateway.address, "/reports", "the order").await.job();
    let received = upstream.next().await;
    let id = job.rsplit('/').next().expect("an id");
    let (code, shown) = run(&["jobs", "show", "--store", &file, id]).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(id), "{shown}");
    let (code, canceled) = run(&["jobs", "cancel", "--store", &file, id]).await;
    assert_eq!(code, Some(0), "{canceled}");
    received.hung_up().await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["status"], "canceled", "{document}");
    assert_eq!(get(gateway.address, &job).await.status, StatusCode::OK);

    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let (code, _) = run(&["jobs", "show", "--store", &file, unknown]).await;
    assert_eq!(code, Some(1));
    let (code, _) = run(&["jobs", "show", "--store", &file, "short"]).await;
    assert_eq!(code, Some(2));
    let missing = directory.path().join("missing.db");
    let missing = missing.to_str().expect("a path");
    let (code, _) = run(&["jobs", "list", "--store", missing]).await;
    assert_eq!(code, Some(1));
    assert!(!std::path::Path::new(missing).exists());
}

#[tokio::test]
async fn gateways_on_one_file_answer_for_each_other() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let flags = ["--store", &file, "--always"];
    let one = Program::gateway(upstream.address, &flags).await;
    let other = Program::gateway(upstream.address, &flags).await;
    let keyed = async |gateway: &Program| {
        let request = request("POST", "/reports").header("idempotency-key", "key");
        let request = request.body("".into()).expect("a request");
        send(gateway.address, request).await.job()
    };
    let job = keyed(&one).await;
    let received = upstream.next().await;
    assert!(get(other.address, &job).await.is_unfinished());
    assert_eq!(keyed(&other).await, job);
    received.ok("report").await;
    assert_eq!(result(other.address, &job).await.body, "report");

    let canceled = post(other.address, "/reports", "").await.job();
    let received = upstream.next().await;
    let delete = request("DELETE", &canceled).body("".into());
    let deleted = send(one.address, delete.expect("a request")).await;
    assert!(deleted.status.is_success(), "{deleted:?}");
    received.hung_up().await;
}

#[tokio::test]
async fn shutdown_hands_back_what_may_run_again() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let flags = ["--store", &file, "--always", "--drain-secs", "0"];
    let mut one = Program::gateway(upstream.address, &flags).await;
    let other = Program::gateway(upstream.address, &flags).await;
    let put = request("PUT", "/reports/1").body("the order".into());
    let put = send(one.address, put.expect("a request")).await.job();
    let first = upstream.next().await;
    let post = post(one.address, "/orders", "").await.job();
    let second = upstream.next().await;
    one.signal("TERM").await;
    one.logged("requeued or cut jobs at the drain deadline")
        .await;
    first.hung_up().await;
    second.hung_up().await;
    assert_eq!(one.ended().await.code(), Some(3));

    let received = upstream.next().await;
    assert_eq!(received.line, "PUT /reports/1 HTTP/1.1");
    assert_eq!(received.body, b"the order");
    // The file carries the client's address to the worker.
    assert_eq!(received.all("x-forwarded-for"), ["127.0.0.1"]);
    received.answer(DONE).await;
    assert_eq!(result(other.address, &put).await.body, "made");
    let document = ended(other.address, &post).await;
    assert_eq!(document["error"]["code"], "shutdown", "{document}");
}

#[tokio::test]
async fn json_has_the_members_of_the_status_document() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--store", &file, "--always"]).await;
    let busy = "HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\nRetry-After: 9\r\n\
        Content-Length: 4\r\n\r\nbusy";
    for answer in [DONE, busy, "not HTTP"] {
        let job = post(gateway.address, "/reports", "").await.job();
        upstream.next().await.answer(answer).await;
        let mut document = ended(gateway.address, &job).await;
        let links = document.as_object_mut().expect("an object");
        links.retain(|name, _| !["self", "resourceLocation"].contains(&&**name));
        let id = job.rsplit('/').next().expect("an id");
        let mut shown = json(&["jobs", "show", "--json", "--store", &file, id]).await;
        let more = shown[0].as_object_mut().expect("an object");
        assert_eq!(more.remove("kind"), Some("POST /reports".into()));
        assert_eq!(more.remove("attempts"), Some(1.into()));
        assert_eq!(shown, [document]);
    }
}

#[tokio::test]
async fn list_selects_the_newest_jobs_of_a_status() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--store", &file, "--always"]).await;
    let mut newest = String::new();
    for number in 0..3 {
        let job = post(gateway.address, &format!("/{number}"), "").await.job();
        upstream.next().await.answer(DONE).await;
        ended(gateway.address, &job).await;
        newest = job;
    }
    post(gateway.address, "/running", "").await.job();
    let _running = upstream.next().await;
    let list = ["jobs", "list", "--json", "--store", &file];
    assert_eq!(json(&list).await.len(), 4);
    let more = ["--status", "succeeded", "--limit", "2"];
    let jobs = json(&[&list[..], &more].concat()).await;
    assert_eq!(jobs.len(), 2);
    let id = jobs[0]["id"].as_str().expect("an id");
    assert!(newest.ends_with(id), "{newest}");

    // An ended job cannot be canceled.
    let (code, text) = run(&["jobs", "cancel", "--store", &file, id]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("has already ended: succeeded"), "{text}");
}

#[tokio::test]
async fn backup_replaces_no_file() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--store", &file]).await;
    // Once it answers, it has created the file.
    get(gateway.address, "/jobs/0").await;
    let target = path_in(&directory, "target");
    std::fs::write(&target, "kept").expect("written");
    let (code, text) = run(&["backup", "--store", &file, &target]).await;
    assert_eq!(code, Some(1));
    assert!(text.contains(&target), "{text}");
    assert_eq!(std::fs::read(&target).expect("read"), b"kept");
}

#[tokio::test]
async fn flags_of_a_store_are_checked() {
    for (flags, reason) in [
        (&["--max-disk-bytes", "1"][..], "--store <PATH>"),
        (&["--concurrency", "1"], "--store <PATH>"),
        (
            &["--store", "a", "--max-disk-bytes", "0"],
            "0 is not in 1..",
        ),
        (&["--store", "a", "--concurrency", "0"], "0 is not in 1.."),
        (
            &["--always", "jobs", "list", "--store", "a"],
            "cannot be used with",
        ),
        (&["jobs", "list"], "--store <PATH>"),
        (
            &["jobs", "list", "--store", "a", "--status", "done"],
            "[possible values: queued, running, succeeded, failed, canceled]",
        ),
        (
            &["jobs", "list", "--store", "a", "--limit", "0"],
            "0 is not in 1..",
        ),
        (&["backup", "--store", "a"], "<TARGET>"),
    ] {
        let (code, text) = run(flags).await;
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(text.contains(reason), "{flags:?}: {text}");
    }
}

#[tokio::test]
async fn max_disk_bytes_refuses_further_jobs() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let upstream = Upstream::start().await;
    let flags = ["--store", &file, "--always", "--max-disk-bytes", "1"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let refused = post(gateway.address, "/reports", "").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn first_lines_name_the_file_once_it_is_open() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let upstream = Upstream::start().await;
    let mut gateway = Program::gateway(upstream.address, &["--store", &file]).await;
    let summary = gateway.line().await.expect("a line");
    let place = format!(" Jobs are kept in {file}.");
    assert!(summary.ends_with(&place), "{summary}");

    let foreign = path_in(&directory, "notes.txt");
    std::fs::write(&foreign, "the notes of another program").expect("written");
    let (code, text) = run(&["--listen", "127.0.0.1:0", "--store", &foreign]).await;
    assert_eq!(code, Some(1));
    // The line `Listening on` would come first.
    let error = format!("accepted-gateway: {foreign} is not");
    assert!(text.starts_with(&error), "{text}");
}

#[cfg(feature = "nats")]
#[tokio::test]
async fn flags_of_one_store_are_refused_with_the_other() {
    // Neither can be reached, so that a gateway that accepts the flags ends too.
    let (file, nats) = ("missing/jobs.db", "nats://127.0.0.1:1");
    for flags in [
        &["--store", file, "--nats", nats][..],
        &["--store", file, "--role", "web"],
        &["--store", file, "--role", "worker"],
        &["--store", file, "--replicas", "3"],
        &["--nats", nats, "--max-disk-bytes", "9"],
    ] {
        let (code, text) = run(flags).await;
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(text.contains("cannot be used with"), "{flags:?}: {text}");
    }
}

#[tokio::test]
async fn metrics_have_the_file() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let (socket, metrics) = crate::upstream::unused_address();
    drop(socket);
    let address = metrics.to_string();
    let flags = ["--store", &file, "--always", "--metrics", &address];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/reports", "the order").await.job();
    upstream.next().await.answer(DONE).await;
    ended(gateway.address, &job).await;
    // The file is measured once a second.
    let last = "tower_accepted_sqlite_waiting_jobs";
    let scrape = async {
        loop {
            let text = get(metrics, "/metrics").await.body;
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(last) {
                return text;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let text = timeout(Duration::from_secs(30), scrape).await;
    let text = text.expect("the gauges in time");
    for name in [
        "tower_accepted_sqlite_commit_seconds",
        "tower_accepted_sqlite_steps_total",
        "tower_accepted_sqlite_disk_bytes",
        "tower_accepted_sqlite_wal_bytes",
        "tower_accepted_sqlite_waiting_jobs",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[tokio::test]
async fn stopped_gateway_keeps_its_work_and_ends_late() {
    let directory = TempDir::new().expect("a directory");
    let file = path_in(&directory, "jobs.db");
    let mut upstream = Upstream::start().await;
    let flags = ["--store", &file, "--always"];
    let stopped = Program::gateway(upstream.address, &flags).await;
    let put = request("PUT", "/reports").body("the order".into());
    let job = send(stopped.address, put.expect("a request")).await.job();
    let received = upstream.next().await;
    while get(stopped.address, &job).await.json()["status"] != "running" {
        sleep(Duration::from_millis(5)).await;
    }
    stopped.signal("STOP").await;
    let other = Program::gateway(upstream.address, &flags).await;
    // The other gateway runs what comes later, so it has looked for work meanwhile.
    let later = post(other.address, "/later", "another").await.job();
    let next = upstream.next().await;
    assert_eq!(next.line, "POST /later HTTP/1.1");
    next.answer(DONE).await;
    assert_eq!(ended(other.address, &later).await["status"], "succeeded");
    assert_eq!(get(other.address, &job).await.json()["status"], "running");
    let cancel = request("POST", &format!("{job}/cancel")).body("".into());
    send(other.address, cancel.expect("a request")).await;
    // The end of the call comes too late.
    received.answer(DONE).await;
    stopped.signal("CONT").await;
    let document = ended(stopped.address, &job).await;
    assert_eq!(document["status"], "canceled", "{document}");
    assert_eq!(ended(other.address, &job).await["status"], "canceled");
}
