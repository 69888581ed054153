//! Bounds the memory of this process, whatever clients and services do.

use std::{
    env, fs,
    future::{Future, pending},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_accepted::{
    JobHandle, Jobs, JobsBuilder,
    store::{Budget, MemoryStore},
};

use crate::support::*;

pub(crate) const MIB: usize = 1 << 20;

const HOUR: Duration = Duration::from_secs(3600);

const BUDGET_BYTES: usize = 32 * MIB;

/// The memory that a scenario may take with a budget of 32 MiB.
const MAX_GROWTH_BYTES: usize = 48 * MIB;

/// Set in the process that runs a scenario.
const CHILD: &str = "ACCEPTED_MEMORY_SCENARIO";

/// Runs a scenario in a process of its own, and fails if it takes too much memory.
///
/// `test` is the name of the test that calls this.
fn assert_bounded(test: &str, scenario: impl Future<Output = ()>) {
    assert_within(&format!("memory::{test}"), MAX_GROWTH_BYTES, scenario);
}

/// Runs the scenario of the test with this path as [`assert_bounded`] does, with another bound.
pub(crate) fn assert_within(test: &str, max_growth: usize, scenario: impl Future<Output = ()>) {
    if fs::metadata("/proc/self/status").is_err() {
        eprintln!("skipped: this system does not show the memory of a process");
        return;
    }
    if env::var_os(CHILD).is_none() {
        let child = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = [child.stdout, child.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        assert!(output.contains("1 passed"), "{output}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let before = status_bytes("VmRSS");
    runtime.block_on(scenario);
    let growth = status_bytes("VmHWM").saturating_sub(before);
    assert!(growth <= max_growth, "{} MiB", growth / MIB);
}

/// Returns a size of this process.
pub(crate) fn status_bytes(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

fn bounded() -> JobsBuilder {
    Jobs::builder().max_bytes(BUDGET_BYTES)
}

fn body(bytes: usize) -> Body {
    Body::from(vec![7; bytes])
}

/// Fields of about 300 kB.
fn large_fields() -> HeaderMap {
    let field = |index| {
        let name = HeaderName::try_from(format!("x-{index}")).unwrap();
        (name, HeaderValue::try_from("v".repeat(3_000)).unwrap())
    };
    (0..100).map(field).collect()
}

fn with_trailers(data: &'static str) -> Body {
    let frames = [
        Ok::<_, Failed>(Frame::data(Bytes::from(data))),
        Ok(Frame::trailers(large_fields())),
    ];
    Body::new(StreamBody::new(stream::iter(frames)))
}

#[test]
fn results_being_sent_are_in_the_budget() {
    assert_bounded("results_being_sent_are_in_the_budget", async {
        let jobs = bounded().replay_timeout(HOUR).build();
        let service = jobs
            .layer()
            .layer(inner(async |_| Ok(Response::new(body(3 * MIB)))));
        let mut unread = Vec::new();
        for _ in 0..100 {
            let accepted = send(&service, post("/")).await;
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
            let result = get(&format!("{}/result", accepted.location()));
            unread.push(service.clone().oneshot(result).await.unwrap());
            send(&service, request("DELETE", accepted.location())).await;
        }
        let sent = unread
            .iter()
            .filter(|result| result.status() == StatusCode::OK);
        assert_eq!(sent.count(), 2, "a quarter of the budget");
        let busy = unread.pop().unwrap();
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(busy.headers().contains_key("retry-after"));
    });
}

#[test]
fn watchers_hold_no_result() {
    assert_bounded("watchers_hold_no_result", async {
        let jobs = bounded().build();
        let service = jobs.layer().layer(inner(async |_| {
            sleep(Duration::from_secs(1)).await;
            Ok(Response::new(body(4 * MIB)))
        }));
        let mut unread = Vec::new();
        for _ in 0..100 {
            let accepted = send(&service, post("/")).await;
            let events = get(&format!("{}/events", accepted.location()));
            let mut events = service.clone().oneshot(events).await.unwrap().into_body();
            // The connection, and the first document.
            for _ in 0..2 {
                events.frame().await.unwrap().unwrap();
            }
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
            send(&service, request("DELETE", accepted.location())).await;
            unread.push(events);
        }
        // A slow watcher still gets the last document.
        for mut events in unread {
            let last = events.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(String::from_utf8_lossy(&last).contains("succeeded"));
        }
    });
}

#[test]
fn request_is_charged_while_its_handler_works() {
    assert_bounded("request_is_charged_while_its_handler_works", async {
        let jobs = bounded().build();
        let service = jobs.layer().layer(inner(async |request| {
            let body = request.into_body().collect().await.map_err(|_| Failed)?;
            let body = body.to_bytes();
            sleep(Duration::from_secs(60)).await;
            ok(if body.len() == 2 * MIB { "whole" } else { "" })
        }));
        let mut accepted = Vec::new();
        for _ in 0..600 {
            let answer = send(&service, post("/").map(|_| body(2 * MIB))).await;
            if answer.status == StatusCode::ACCEPTED {
                accepted.push(answer);
            } else {
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            }
        }
        assert_eq!(
            accepted.len(),
            3,
            "a quarter of the budget, with their heads"
        );
        for accepted in accepted {
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
        }
    });
}

#[test]
fn trailers_are_charged() {
    assert_bounded("trailers_are_charged", async {
        let jobs = bounded().build();
        let service = jobs.layer().layer(inner(async |request| {
            let body = request.into_body().collect().await.map_err(|_| Failed)?;
            sleep(Duration::from_secs(60)).await;
            drop(body);
            Ok(Response::new(with_trailers("response")))
        }));
        let mut accepted = Vec::new();
        for _ in 0..300 {
            let answer = send(&service, post("/").map(|_| with_trailers("request"))).await;
            if answer.status == StatusCode::ACCEPTED {
                accepted.push(answer);
            }
        }
        assert!((20..27).contains(&accepted.len()), "{}", accepted.len());
        for accepted in accepted {
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
        }
    });
}

#[test]
fn heads_of_queued_jobs_are_charged() {
    assert_bounded("heads_of_queued_jobs_are_charged", async {
        let jobs = bounded().build();
        let service = tower::ServiceBuilder::new()
            .layer(jobs.layer())
            .concurrency_limit(1)
            .service(inner(async |_| {
                pending::<Result<Response<Body>, Failed>>().await
            }));
        let mut accepted = 0;
        for _ in 0..600 {
            let mut request = post("/");
            *request.headers_mut() = large_fields();
            let answer = send(&service, request).await;
            accepted += usize::from(answer.status == StatusCode::ACCEPTED);
        }
        assert!((20..27).contains(&accepted), "{accepted}");
    });
}

#[test]
fn small_slice_keeps_no_large_buffer() {
    assert_bounded("small_slice_keeps_no_large_buffer", async {
        let jobs = bounded().build();
        let service = jobs.layer().layer(inner(async |request| {
            let slice = Bytes::from(vec![7; 4 * MIB]).slice(..100_000);
            if request.uri().path() == "/one" {
                return Ok(Response::new(Body::from(slice)));
            }
            let frames = [slice.slice(..10), slice].map(Ok::<_, Failed>);
            Ok(Response::new(Body::from_stream(stream::iter(frames))))
        }));
        for path in ["/one", "/several"] {
            for _ in 0..50 {
                let accepted = send(&service, post(path)).await;
                assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
            }
        }
    });
}

#[test]
fn progress_messages_are_charged() {
    assert_bounded("progress_messages_are_charged", async {
        let jobs = bounded().max_unfinished(usize::MAX).build();
        let service = jobs.layer().layer(inner(async |_| {
            JobHandle::current().message("m".repeat(512));
            pending::<Result<Response<Body>, Failed>>().await
        }));
        let mut accepted = 0;
        for _ in 0..30_000 {
            let answer = send(&service, post("/")).await;
            accepted += usize::from(answer.status == StatusCode::ACCEPTED);
            tokio::task::yield_now().await;
        }
        assert!((2_000..4_000).contains(&accepted), "{accepted}");
    });
}

#[test]
fn small_values_keep_no_large_buffer() {
    assert_bounded("small_values_keep_no_large_buffer", async {
        let jobs = bounded().build();
        let service = jobs.layer().layer(inner(async |request| {
            let body = request.into_body().collect().await.map_err(|_| Failed)?;
            let body = body.to_bytes();
            let buffer = Bytes::from(vec![b'v'; 2 * MIB]);
            let value = HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap();
            drop(buffer);
            let frames = [
                body,
                Bytes::from(vec![7; 40_000]),
                Bytes::from(vec![7; 40_000]),
            ];
            let frames = stream::iter(frames.map(Ok::<_, Failed>));
            let body = Body::from_stream(frames);
            Ok(Response::builder()
                .header("x-id", value)
                .body(body)
                .unwrap())
        }));
        for _ in 0..100 {
            let buffer = Bytes::from(vec![7; 2 * MIB]);
            let request = post("/").map(|_| Body::from(buffer.slice(..4)));
            drop(buffer);
            let accepted = send(&service, request).await;
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
        }
    });
}

#[test]
fn small_request_keeps_no_read_buffer() {
    assert_bounded("small_request_keeps_no_read_buffer", async {
        let jobs = bounded().build();
        let service = jobs.layer().layer(inner(async |request| {
            let body = request.into_body().collect().await.map_err(|_| Failed)?;
            let body = body.to_bytes();
            sleep(HOUR).await;
            drop(body);
            ok("")
        }));
        for _ in 0..200 {
            let buffer = Bytes::from(vec![7; MIB]);
            let request = post("/").map(|_| Body::from(buffer.slice(..4)));
            drop(buffer);
            send(&service, request).await.location();
        }
    });
}

/// HPACK keeps values of a response's fields for as long as the connection.
#[tokio::test(start_paused = true)]
async fn fields_of_a_result_keep_nothing_of_it() {
    let budget = Budget::new(BUDGET_BYTES);
    let jobs = Jobs::builder()
        .store(MemoryStore::new(HOUR, budget.clone()))
        .build();
    let service = jobs.layer().layer(inner(async |_| {
        let response = Response::builder().header("x-id", "1");
        Ok(response.body(body(4 * MIB)).unwrap())
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let reading = get(&format!("{}/result", accepted.location()));
    let reading = service.clone().oneshot(reading).await.unwrap();
    let (head, reading) = reading.into_parts();
    assert_eq!(reading.collect().await.unwrap().to_bytes().len(), 4 * MIB);
    send(&service, request("DELETE", accepted.location())).await;
    assert!(budget.used() < 100, "{budget:?}");
    assert_eq!(head.headers["x-id"], "1");
}

/// Uploads that stall one byte short of the budget take nothing from others.
#[tokio::test(start_paused = true)]
async fn stalled_uploads_evict_nothing() {
    let jobs = Jobs::builder().max_bytes(4 * MIB).build();
    let service = jobs.layer().layer(inner(async |request| {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(20)).await;
        }
        Ok(Response::new(body(400_000)))
    }));
    let mut kept = Vec::new();
    for _ in 0..3 {
        let accepted = send(&service, post("/")).await;
        ended(&service, &accepted).await;
        kept.push(accepted);
    }
    kept.push(send(&service, post("/slow")).await);
    let uploads: Vec<_> = (0..160)
        .map(|_| {
            let service = service.clone();
            let first = stream::iter([Ok::<_, Failed>(vec![0; 60_000])]);
            let stalled = Body::from_stream(first.chain(stream::pending()));
            tokio::spawn(async move { send(&service, post("/").map(|_| stalled)).await.status })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    let refused = uploads.iter().filter(|upload| upload.is_finished());
    assert_eq!(refused.count(), 160 - MIB / 60_000);
    for accepted in &kept {
        assert_eq!(ended(&service, accepted).await["status"], "succeeded");
        assert_eq!(result(&service, accepted).await.body.len(), 400_000);
    }
}

#[tokio::test(start_paused = true)]
async fn result_that_is_read_is_not_evicted() {
    let jobs = Jobs::builder().max_bytes(4 * MIB).build();
    let service = jobs
        .layer()
        .layer(inner(async |_| Ok(Response::new(body(400_000)))));
    let first = send(&service, post("/")).await;
    ended(&service, &first).await;
    let reading = get(&format!("{}/result", first.location()));
    let reading = service.clone().oneshot(reading).await.unwrap();
    let others = async || {
        for _ in 0..10 {
            let accepted = send(&service, post("/")).await;
            assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
        }
    };
    others().await;
    assert_eq!(result(&service, &first).await.body.len(), 400_000);
    drop(reading);
    // It is still the one that ended first.
    others().await;
    let gone = send(&service, get(first.location())).await;
    assert_eq!(gone.status, StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_evicted_in_vain() {
    let jobs = Jobs::builder().max_bytes(4 * MIB).build();
    let service = jobs.layer().layer(inner(async |request| {
        if request.uri().path() == "/holds" {
            let body = request.into_body().collect().await.map_err(|_| Failed)?;
            sleep(Duration::from_secs(60)).await;
            drop(body);
        }
        Ok(Response::new(body(100_000)))
    }));
    let mut kept = Vec::new();
    for _ in 0..4 {
        let accepted = send(&service, post("/")).await;
        ended(&service, &accepted).await;
        kept.push(accepted);
    }
    let holds = || post("/holds").map(|_| body(MIB / 2));
    send(&service, holds()).await.location();
    let refused = send(&service, holds()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    for accepted in &kept {
        assert_eq!(result(&service, accepted).await.status, StatusCode::OK);
    }
}

/// Returns how many of 40 responses of 16 MiB end as succeeded within 256 MiB.
async fn large_responses_succeed(response: fn() -> Body) -> usize {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(move |_| async move {
        sleep(Duration::from_secs(1)).await;
        Ok(Response::new(response()))
    }));
    let mut accepted = Vec::new();
    for _ in 0..40 {
        accepted.push(send(&service, post("/")).await);
    }
    // Every job ends, so a drain does.
    assert_eq!(jobs.drain(HOUR).await, 0);
    let mut succeeded = 0;
    for accepted in &accepted {
        let job = send(&service, get(accepted.location())).await;
        // An evicted job had a result.
        if job.status == StatusCode::GONE || job.json()["status"] == "succeeded" {
            succeeded += 1;
        } else {
            assert_eq!(job.json()["error"]["code"], "result_too_large");
        }
    }
    succeeded
}

static ZEROS: [u8; 16 * MIB] = [0; 16 * MIB];

#[tokio::test(start_paused = true)]
async fn responses_wait_for_room() {
    // The length is known, so each takes its room at once.
    let known = large_responses_succeed(|| Body::from(&ZEROS[..])).await;
    assert_eq!(known, 40);
    // Here all grow at the same time.
    let growing = large_responses_succeed(|| {
        let frames = ZEROS
            .chunks(MIB)
            .map(|frame| Ok::<_, Failed>(Bytes::from(frame)));
        let frames = stream::iter(frames.collect::<Vec<_>>());
        Body::from_stream(frames.then(async |frame| {
            sleep(Duration::from_millis(10)).await;
            frame
        }))
    })
    .await;
    assert!(growing >= 20, "{growing}");
}

#[tokio::test(start_paused = true)]
async fn replay_without_progress_releases_its_bytes() {
    let budget = Budget::new(BUDGET_BYTES);
    let store = MemoryStore::new(HOUR, budget.clone());
    let jobs = Jobs::builder().store(store).build();
    let service = jobs
        .layer()
        .layer(inner(async |_| Ok(Response::new(body(4 * MIB)))));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let reading = get(&format!("{}/result", accepted.location()));
    let mut reading = service.clone().oneshot(reading).await.unwrap().into_body();
    // A server holds frames until its client reads them.
    let _held = reading.frame().await.unwrap().unwrap();
    send(&service, request("DELETE", accepted.location())).await;
    assert!(budget.used() > 4 * MIB);
    sleep(Duration::from_secs(121)).await;
    assert!(budget.used() < 100, "{budget:?}");
    assert!(reading.frame().await.unwrap().is_err());
    assert!(!reading.is_end_stream());
}
