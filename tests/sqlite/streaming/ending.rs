//! Jobs that end before their output does, and what remains of it.

use std::time::Duration;

use http::{Request, StatusCode};

use super::output::{Producer, Streamed, open, pattern, produced, wait_for_bytes};
use crate::{
    site::{
        Home, end, files_below, hanging, layered, options, quick, registry, until, wait_for_end,
        work,
    },
    suites::routes::Outer,
    support::{Body, Counter, get, post, request, send},
};

/// The sizes of outputs that stay in rows, and that go to a file too.
const SIZES: [usize; 2] = [5_000, 800_000];

/// Produces the first bytes of an output, and waits until they can be read.
async fn produce(home: &Home, request: Request<Body>, size: usize) -> (Producer, Outer, String) {
    let (producer, service) = produced();
    let site = home.serve(service).await;
    let location = send(&site, request).await.location().to_owned();
    producer.send(pattern(0, 10));
    wait_for_bytes(&site, &location, 10).await;
    producer.send(pattern(10, size - 10));
    wait_for_bytes(&site, &location, size as u64).await;
    (producer, site, location)
}

/// Checks the part of a job that has ended: it is in the document, and can be read from any byte.
async fn check_part(site: &Outer, location: &str, size: usize) {
    let document = send(site, get(location)).await.json();
    assert_eq!(document["partial"]["status"], 200, "{document}");
    assert_eq!(document["partial"]["contentLength"], size, "{document}");
    assert!(document["response"].is_null(), "{document}");
    for from in [0, size / 2, size] {
        let part = open(site, location, &format!("?offset={from}")).await;
        assert_eq!(part.rest().await, (pattern(from as u64, size - from), true));
    }
    let beyond = open(site, location, &format!("?offset={}", size + 1)).await;
    assert_eq!(beyond.status, StatusCode::BAD_REQUEST);
}

/// Checks that nothing of any output is left.
async fn nothing_is_left(home: &Home) {
    until(async || {
        home.number("SELECT (SELECT count(*) FROM part) + (SELECT count(*) FROM response)") == 0
    })
    .await;
    assert_eq!(home.number("SELECT file_bytes FROM totals"), 0);
    until(async || {
        let files = files_below(&home.bodies()).into_iter();
        let mut bodies = files.filter(|path| path.is_file() && !path.ends_with("lock"));
        bodies.next().is_none()
    })
    .await;
}

#[tokio::test]
async fn canceled_job_keeps_its_part() {
    for size in SIZES {
        let home = Home::new(options());
        let other = home.serve(quick()).await;
        for cancels_here in [true, false] {
            let (producer, site, location) = produce(&home, post("/it"), size).await;
            let reader = open(&other, &location, "").await;
            let canceling = if cancels_here { &site } else { &other };
            send(canceling, request("POST", &format!("{location}/cancel"))).await;
            producer.is_canceled().await;
            assert_eq!(end(&site, &location).await, "canceled");
            assert_eq!(end(&other, &location).await, "canceled");
            assert_eq!(reader.rest().await, (pattern(0, size), true));
            for site in [&site, &other] {
                check_part(site, &location, size).await;
            }
        }
        let shown: Vec<String> =
            home.texts("SELECT bytes || ' ' || ifnull(response, '') FROM jobs");
        assert_eq!(shown, vec![format!("{size} "); 2]);
    }
}

#[tokio::test]
async fn failed_body_keeps_its_part_over_a_restart() {
    for size in SIZES {
        let home = Home::new(options());
        let (producer, site, location) = produce(&home, post("/it"), size).await;
        // The end takes along what was not committed yet.
        producer.send(pattern(size as u64, 9));
        producer.fail();
        assert_eq!(end(&site, &location).await, "body_error");
        check_part(&site, &location, size + 9).await;
        drop(site);
        home.closed().await;
        let site = home.serve(quick()).await;
        check_part(&site, &location, size + 9).await;
    }
}

#[tokio::test]
async fn deleted_output_leaves_nothing() {
    for size in SIZES {
        let home = Home::new(options());
        let other = home.serve(quick()).await;
        // While it is produced, after it broke off, and after it is complete.
        for state in 0..3 {
            let (producer, site, location) = produce(&home, post("/it"), size).await;
            let reader = open(&other, &location, "").await;
            match state {
                0 => {}
                1 => producer.fail(),
                _ => drop(producer),
            }
            if state > 0 {
                end(&site, &location).await;
            }
            let deleted = send(&other, request("DELETE", &location)).await;
            assert_eq!(deleted.status, StatusCode::NO_CONTENT);
            // The reader has a part of the output.
            let (read, _) = reader.rest().await;
            assert!(pattern(0, size).starts_with(&read));
            nothing_is_left(&home).await;
        }
    }
}

#[tokio::test]
async fn expired_output_leaves_nothing() {
    for size in SIZES {
        let home = Home::new(options().retain(Duration::from_secs(1)));
        let (producer, site, location) = produce(&home, post("/it"), size).await;
        assert!(home.number("SELECT count(*) FROM part") > 0);
        producer.fail();
        wait_for_end(&site, &location).await;
        nothing_is_left(&home).await;
        assert_eq!(send(&site, get(&location)).await.status, StatusCode::GONE);
    }
}

#[tokio::test]
async fn unfinished_output_counts_for_the_disk() {
    const MAX_BYTES: u64 = 4 << 20;
    let home = Home::new(options().max_disk_bytes(MAX_BYTES));
    let (producer, site, location) = produce(&home, post("/it"), 5_000_000).await;
    let refused = send(&site, post("/it")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    send(&site, request("DELETE", &location)).await;
    producer.is_canceled().await;
    let other = home.serve(quick()).await;
    until(async || send(&other, post("/it")).await.status == StatusCode::ACCEPTED).await;
}

#[tokio::test]
async fn request_that_runs_again_has_one_output() {
    for size in SIZES {
        let home = Home::new(options());
        let (producer, service) = produced();
        let jobs = home.jobs().await;
        let site = layered(&jobs, service);
        let other_jobs = home.jobs().await;
        let other = layered(&other_jobs, quick());
        let location = send(&site, request("PUT", "/it"))
            .await
            .location()
            .to_owned();
        producer.send(pattern(0, size));
        wait_for_bytes(&other, &location, size as u64).await;
        let reader = open(&other, &location, "").await;
        let first: Streamed = open(&other, &location, "").await;
        // This hands the request back, since a worker may run it again.
        jobs.drain(Duration::ZERO).await;
        drop((site, jobs));
        producer.is_canceled().await;
        let (second, service) = produced();
        let _worker = work(&other_jobs, service);
        second.send("another output");
        until(async || {
            let streamed = open(&other, &location, "").await;
            streamed.header("etag") != first.header("etag")
        })
        .await;
        // Its bytes are those of the first run alone.
        let (read, is_broken) = reader.rest().await;
        assert!(is_broken && pattern(0, size).starts_with(&read));
        let resumed = open(&other, &location, "?offset=3").await;
        assert_eq!(resumed.status, StatusCode::PRECONDITION_FAILED);
        drop(second);
        assert_eq!(end(&other, &location).await, "succeeded");
        let result = send(&other, get(&format!("{location}/result"))).await;
        assert_eq!(result.body, "another output");
        assert_eq!(
            home.number("SELECT count(*) FROM response WHERE run = 2"),
            1
        );
        assert_eq!(home.number("SELECT file_bytes FROM totals"), 0);
    }
}

#[tokio::test]
async fn copy_of_a_file_in_use_has_outputs() {
    for size in SIZES {
        let home = Home::new(options());
        let (producer, _site, location) = produce(&home, post("/it"), size).await;
        let store = home.store().await;
        let target = home.directory().join("copy.db");
        store.backup_to(&target).await.unwrap();
        producer.send(pattern(size as u64, 100));
        let copy = tower_accepted::store::sqlite::SqliteStore::open(&target, options()).await;
        let copy = registry(Default::default(), copy.unwrap());
        let site = layered(&copy, hanging(&Counter::default()));
        assert_eq!(end(&site, &location).await, "lost");
        check_part(&site, &location, size).await;
    }
}
