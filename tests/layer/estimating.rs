//! When a client is told to ask again, and when the document says that the job may be done.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{AcceptedLayer, JobHandle, Jobs, ResponseBody};

use crate::support::*;

/// Runs jobs one after the other, each to its end.
async fn run<S, R>(service: &S, jobs: usize, request: impl Fn() -> Request<Body>)
where
    S: Service<Request<Body>, Response = Response<ResponseBody<R>>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = bytes::Bytes>,
    R::Error: Into<BoxError>,
{
    for _ in 0..jobs {
        let accepted = send(service, request()).await;
        ended(service, &accepted).await;
    }
}

fn retry_after(answer: &Answer) -> u64 {
    let seconds = answer.header("retry-after").expect("unfinished");
    seconds.parse().expect("whole seconds")
}

/// The seconds between two times of a document.
fn between(document: &Value, from: &str, to: &str) -> f64 {
    let [from, to] = [from, to].map(|name| {
        let time = document[name].as_str();
        let time = time.unwrap_or_else(|| panic!("no {name} in {document}"));
        time.parse::<Timestamp>().expect("RFC 3339")
    });
    to.duration_since(from).as_secs_f64()
}

fn about(expected: f64) -> std::ops::RangeInclusive<f64> {
    expected - 0.5..=expected + 0.5
}

#[tokio::test(start_paused = true)]
async fn after_fifty_jobs_of_twenty_seconds_the_next_is_worth_asking_for_in_twenty() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("")
    }));
    let first = send(&service, post("/reports")).await;
    assert_eq!(retry_after(&first), 1);
    assert_eq!(first.json().get("estimatedFinishAt"), None);
    run(&service, 50, || post("/reports")).await;
    let accepted = send(&service, post("/reports")).await;
    assert!((20..=21).contains(&retry_after(&accepted)), "{accepted:?}");
    let left = between(&accepted.json(), "createdAt", "estimatedFinishAt");
    assert!(about(20.0).contains(&left), "{left}");
    // Given that it has run for some of that already.
    sleep(Duration::from_secs(15)).await;
    let later = send(&service, get(accepted.location())).await;
    assert!((5..=6).contains(&retry_after(&later)), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn an_estimate_stays_as_it_is_for_as_long_as_the_job_does() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("")
    }));
    run(&service, 10, || post("/reports")).await;
    let accepted = send(&service, post("/reports")).await;
    sleep(Duration::from_secs(1)).await;
    let one = send(&service, get(accepted.location())).await;
    // Another job ends in between.
    sleep(Duration::from_secs(10)).await;
    let other = send(&service, get(accepted.location())).await;
    assert_eq!(one.header("etag"), other.header("etag"));
    assert_eq!(one.text(), other.text());
    assert!(one.json().get("estimatedFinishAt").is_some());
}

#[tokio::test(start_paused = true)]
async fn requests_alike_but_for_an_id_are_of_one_kind_and_others_of_another() {
    let service = AcceptedLayer::new().layer(inner(async |request: Request<_>| {
        let seconds = if request.uri().path().ends_with("/render") {
            20
        } else {
            5
        };
        sleep(Duration::from_secs(seconds)).await;
        ok("")
    }));
    for id in 0..20 {
        run(&service, 1, || post(&format!("/reports/{id}/render"))).await;
        run(&service, 1, || post(&format!("/reports/{id}/check"))).await;
    }
    let render = send(&service, post("/reports/99/render")).await;
    let check = send(&service, post("/reports/99/check")).await;
    assert!((20..=21).contains(&retry_after(&render)), "{render:?}");
    assert!((5..=6).contains(&retry_after(&check)), "{check:?}");
    assert_eq!(retry_after(&send(&service, post("/other")).await), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_one_kind_can_be_told() {
    let layer = AcceptedLayer::new().kind(|head| {
        let size = head.headers.get("x-size")?.to_str().ok()?;
        Some(size.into())
    });
    let service = layer.layer(inner(async |request: Request<_>| {
        let is_large = request.headers()["x-size"] == "large";
        sleep(Duration::from_secs(if is_large { 60 } else { 5 })).await;
        ok("")
    }));
    let of = |size| with(post("/photos"), &[("x-size", size)]);
    run(&service, 20, || of("large")).await;
    run(&service, 20, || of("small")).await;
    let large = send(&service, of("large")).await;
    let small = send(&service, of("small")).await;
    assert!((60..=61).contains(&retry_after(&large)), "{large:?}");
    assert!((5..=6).contains(&retry_after(&small)), "{small:?}");
}

#[tokio::test(start_paused = true)]
async fn how_long_jobs_are_queued_is_told_apart_from_how_long_they_run() {
    let jobs = Jobs::new();
    let service = ServiceBuilder::new()
        .layer(jobs.layer())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(inner(async |_| {
            sleep(Duration::from_secs(10)).await;
            ok("")
        }));
    // Two at a time: one waits for the other.
    for _ in 0..30 {
        let both = [
            send(&service, post("/reports")).await,
            send(&service, post("/reports")).await,
        ];
        for accepted in &both {
            ended(&service, accepted).await;
        }
    }
    let running = send(&service, post("/reports")).await;
    sleep(Duration::from_millis(100)).await;
    let queued = send(&service, post("/reports")).await;
    let running = send(&service, get(running.location())).await.json();
    assert_eq!(running["status"], "running");
    let left = between(&running, "startedAt", "estimatedFinishAt");
    assert!(about(10.0).contains(&left), "{left}");
    // Half of them did not wait: but one that has waited for a second does.
    sleep(Duration::from_secs(1)).await;
    let waiting = send(&service, get(queued.location())).await;
    assert_eq!(waiting.json()["status"], "queued");
    assert!((18..=20).contains(&retry_after(&waiting)), "{waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn half_done_after_ten_seconds_is_taken_to_need_ten_more() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(10)).await;
        JobHandle::current().progress(0.5);
        sleep(Duration::from_secs(10)).await;
        ok("")
    }));
    let accepted = send(&service, post("/reports")).await;
    sleep(Duration::from_secs(11)).await;
    let answer = send(&service, get(accepted.location())).await;
    let document = answer.json();
    assert_eq!(document["percentComplete"], 50);
    let whole = between(&document, "startedAt", "estimatedFinishAt");
    assert!(about(20.0).contains(&whole), "{whole}");
    assert!((8..=11).contains(&retry_after(&answer)), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn where_progress_is_known_to_slow_down_that_is_reckoned_with() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        // The first half takes from 8 to 27 seconds, the second three times as long: after 30 s half is done.
        let first = 8 + (JobHandle::current().id().unwrap().to_string().as_bytes()[0] % 20);
        let first = Duration::from_secs(first.into());
        sleep(first).await;
        JobHandle::current().progress(0.5);
        sleep(first * 3).await;
        ok("")
    }));
    run(&service, 50, || post("/reports")).await;
    let accepted = send(&service, post("/reports")).await;
    sleep(Duration::from_secs(30)).await;
    let document = send(&service, get(accepted.location())).await.json();
    let whole = between(&document, "startedAt", "estimatedFinishAt");
    let end = ended(&service, &accepted).await;
    let took = between(&end, "startedAt", "finishedAt");
    assert!((whole / took - 1.0).abs() < 0.1, "{whole} but {took}");
}

#[tokio::test(start_paused = true)]
async fn what_failed_says_nothing_of_what_will_succeed() {
    let service = AcceptedLayer::new().layer(inner(async |request: Request<_>| {
        let is_bad = request.headers().contains_key("x-bad");
        if !is_bad {
            sleep(Duration::from_secs(20)).await;
        }
        let mut response = ok("")?;
        if is_bad {
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        }
        Ok(response)
    }));
    run(&service, 20, || post("/reports")).await;
    run(&service, 200, || with(post("/reports"), &[("x-bad", "1")])).await;
    let accepted = send(&service, post("/reports")).await;
    assert!((20..=21).contains(&retry_after(&accepted)), "{accepted:?}");
}

#[tokio::test(start_paused = true)]
async fn dearer_polls_are_fewer() {
    let mut polls = Vec::new();
    for cost in [Duration::from_millis(100), Duration::from_secs(20)] {
        let layer = Jobs::builder().poll_cost(cost).build().layer();
        let turn = Counter::default();
        let service = layer.layer(inner(move |_| {
            turn.up();
            let seconds = 10 + turn.count() as u64 * 7 % 30;
            async move {
                sleep(Duration::from_secs(seconds)).await;
                ok("")
            }
        }));
        run(&service, 60, || post("/reports")).await;
        let mut count = 0;
        for _ in 0..30 {
            let accepted = send(&service, post("/reports")).await;
            let mut answer = accepted.clone();
            while answer.header("retry-after").is_some() {
                sleep(Duration::from_secs(retry_after(&answer))).await;
                answer = send(&service, get(accepted.location())).await;
                count += 1;
            }
        }
        polls.push(count);
    }
    assert!(polls[0] > 2 * polls[1], "{polls:?}");
}
