//! `Retry-After` and `estimatedFinishAt`, learned from earlier jobs.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::sleep;
use tower::{BoxError, Layer, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{AcceptedLayer, JobHandle, Jobs, ResponseBody};

use crate::support::*;

/// Runs jobs one after another, each to its end.
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

/// Returns the seconds between two times of a document.
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
async fn retry_after_is_the_usual_duration() {
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
    sleep(Duration::from_secs(15)).await;
    let later = send(&service, get(accepted.location())).await;
    assert!((5..=6).contains(&retry_after(&later)), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn estimate_changes_only_with_the_job() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("")
    }));
    run(&service, 10, || post("/reports")).await;
    let accepted = send(&service, post("/reports")).await;
    sleep(Duration::from_secs(1)).await;
    let one = send(&service, get(accepted.location())).await;
    sleep(Duration::from_secs(10)).await;
    let other = send(&service, get(accepted.location())).await;
    assert_eq!(one.header("etag"), other.header("etag"));
    assert_eq!(one.text(), other.text());
    assert!(one.json().get("estimatedFinishAt").is_some());
}

#[tokio::test(start_paused = true)]
async fn requests_that_differ_by_an_id_are_one_kind() {
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
async fn application_can_name_kinds() {
    let layer = AcceptedLayer::new().kind(|head| {
        let size = head.headers.get("x-size")?.to_str().ok()?;
        Some(size.into())
    });
    let service = layer.layer(inner(async |request: Request<_>| {
        let is_large = request.headers()["x-size"] == "large";
        sleep(Duration::from_secs(if is_large { 60 } else { 5 })).await;
        ok("")
    }));
    let photo = |size| with(post("/photos"), &[("x-size", size)]);
    run(&service, 20, || photo("large")).await;
    run(&service, 20, || photo("small")).await;
    let large = send(&service, photo("large")).await;
    let small = send(&service, photo("small")).await;
    assert!((60..=61).contains(&retry_after(&large)), "{large:?}");
    assert!((5..=6).contains(&retry_after(&small)), "{small:?}");
}

#[tokio::test(start_paused = true)]
async fn queue_time_and_run_time_are_separate() {
    let jobs = Jobs::new();
    let service = ServiceBuilder::new()
        .layer(jobs.layer())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(inner(async |_| {
            sleep(Duration::from_secs(10)).await;
            ok("")
        }));
    // Of each two, one waits for the other.
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
    // Half of the jobs did not wait, but this one has waited for a second.
    sleep(Duration::from_secs(1)).await;
    let waiting = send(&service, get(queued.location())).await;
    assert_eq!(waiting.json()["status"], "queued");
    assert!((18..=20).contains(&retry_after(&waiting)), "{waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn progress_is_extrapolated() {
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
async fn slowdown_after_the_midpoint_is_learned() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        // The first half takes between 8 and 27 s, the second three times as long. So the midpoint
        // is before 30 s.
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
    assert!(
        (whole / took - 1.0).abs() < 0.1,
        "expected {whole} s, took {took} s"
    );
}

#[tokio::test(start_paused = true)]
async fn failed_jobs_are_ignored() {
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
async fn higher_poll_cost_means_fewer_polls() {
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
