//! Metrics as Prometheus scrapes them. Each test has its own recorder.

#![allow(clippy::unwrap_used)]

#[path = "../layer/support.rs"]
#[allow(dead_code)]
mod support;

#[cfg(feature = "webhook")]
#[path = "../webhook/kit.rs"]
#[allow(dead_code)]
mod kit;
#[cfg(feature = "webhook")]
mod webhooks;

use std::{sync::Mutex, time::Duration};

use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_accepted::{Idempotency, Jobs};

#[cfg(feature = "webhook")]
use crate::support as layered;
use crate::support::*;

/// The metrics recorded on this thread.
struct Scrape(PrometheusHandle);

impl Scrape {
    /// Starts recording, until the guard is dropped.
    fn start(recorder: &PrometheusRecorder) -> (Self, metrics::LocalRecorderGuard<'_>) {
        (
            Self(recorder.handle()),
            metrics::set_default_local_recorder(recorder),
        )
    }

    /// Returns the value of a series, written as `name{label="value"}`.
    fn value(&self, series: &str) -> f64 {
        let text = self.0.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
        value.parse().expect("a number")
    }

    fn has(&self, text: &str) -> bool {
        self.0.render().contains(text)
    }
}

fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

#[tokio::test(start_paused = true)]
async fn jobs_are_counted_from_the_202_to_the_end() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let service = Jobs::new()
        .layer()
        .layer(inner(async |request: http::Request<_>| {
            sleep(Duration::from_secs(20)).await;
            let mut response = ok("the report")?;
            if request.uri().path() == "/broken" {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            Ok(response)
        }));
    let running = send(&service, post("/measured/reports/1")).await;
    assert_eq!(scrape.value("tower_accepted_accepted_total"), 1.0);
    assert_eq!(scrape.value("tower_accepted_unfinished"), 1.0);
    ended(&service, &running).await;
    let broken = send(&service, post("/broken")).await;
    ended(&service, &broken).await;
    let canceled = send(&service, post("/measured/reports/2")).await;
    sleep(Duration::from_secs(5)).await;
    let cancel = format!("{}/cancel", canceled.location());
    send(&service, post(&cancel)).await;
    sleep(Duration::from_secs(1)).await;
    for (end, count) in [("succeeded", 1.0), ("http_error", 1.0), ("canceled", 1.0)] {
        let series = format!("tower_accepted_ended_total{{end=\"{end}\"}}");
        assert_eq!(scrape.value(&series), count, "{end}");
    }
    assert_eq!(scrape.value("tower_accepted_accepted_total"), 3.0);
    assert_eq!(scrape.value("tower_accepted_unfinished"), 0.0);
    let of =
        |name: &str, kind: &str| scrape.value(&format!("tower_accepted_{name}{{kind=\"{kind}\"}}"));
    let kind = "POST /measured/reports/{}";
    assert_eq!(of("run_seconds_count", kind), 2.0);
    let sum = of("run_seconds_sum", kind);
    assert!((25.0..25.1).contains(&sum), "{sum}");
    assert_eq!(of("queue_seconds_sum", kind), 0.0);
    // A kind is labeled `other` until one of its jobs has succeeded.
    assert_eq!(of("run_seconds_count", "other"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_counted_by_reason() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let jobs = Jobs::builder().max_unfinished(1).max_body(10).build();
    let layer = jobs.layer().idempotency(Idempotency::new()).admit(|head| {
        if head.headers.contains_key("x-no") {
            Err(Response::new("no".into()))
        } else {
            Ok(())
        }
    });
    let service = layer.layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("")
    }));
    let large = post("/").map(|_| Body::from("more than ten bytes"));
    send(&service, large).await;
    send(&service, with(post("/"), &[("x-no", "1")])).await;
    send(&service, with(post("/"), &[("idempotency-key", "")])).await;
    let keyed = || with(post("/"), &[("idempotency-key", "one")]);
    send(&service, keyed()).await;
    send(&service, keyed()).await;
    send(
        &service,
        with(request("PUT", "/"), &[("idempotency-key", "one")]),
    )
    .await;
    send(&service, post("/")).await;
    for reason in [
        "body-too-large",
        "admit",
        "malformed-key",
        "key-reused",
        "full",
    ] {
        let series = format!("tower_accepted_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(scrape.value(&series), 1.0, "{reason}");
    }
    assert_eq!(scrape.value("tower_accepted_joined_total"), 1.0);
    assert_eq!(scrape.value("tower_accepted_accepted_total"), 1.0);
    jobs.drain(Duration::from_secs(60)).await;
    send(&service, post("/")).await;
    assert!(scrape.has("reason=\"draining\""));
}

#[tokio::test(start_paused = true)]
async fn waiters_and_streams_are_counted_while_open() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let service = Jobs::new().layer().layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    let waiting = with(get(accepted.location()), &[("prefer", "wait=60")]);
    let waiting = tokio::spawn(service.clone().oneshot(waiting));
    let disconnecting = with(get(accepted.location()), &[("prefer", "wait=60")]);
    let disconnecting = tokio::spawn(service.clone().oneshot(disconnecting));
    let events = with(
        get(accepted.location()),
        &[(header::ACCEPT.as_str(), "text/event-stream")],
    );
    let events = service.clone().oneshot(events).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scrape.value("tower_accepted_waiters"), 2.0);
    assert_eq!(scrape.value("tower_accepted_streams"), 1.0);
    disconnecting.abort();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scrape.value("tower_accepted_waiters"), 1.0);
    waiting.await.unwrap().unwrap();
    events.into_body().collect().await.unwrap();
    assert_eq!(scrape.value("tower_accepted_waiters"), 0.0);
    assert_eq!(scrape.value("tower_accepted_streams"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn budget_is_used_until_jobs_expire() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let jobs = Jobs::builder().retain(Duration::from_secs(60)).build();
    let service = jobs
        .layer()
        .layer(inner(async |_| ok("a result of twenty-five bytes")));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let used = scrape.value("tower_accepted_budget_bytes");
    assert!((320.0..600.0).contains(&used), "{used}");
    sleep(Duration::from_secs(200)).await;
    assert_eq!(scrape.value("tower_accepted_budget_bytes"), 0.0);
}

/// Collects the name, type and unit of each described metric.
#[derive(Default)]
struct Descriptions(Mutex<Vec<(String, &'static str, Option<Unit>)>>);

impl Descriptions {
    fn add(&self, name: KeyName, metric: &'static str, unit: Option<Unit>) {
        let mut described = self.0.lock().unwrap();
        described.push((name.as_str().to_owned(), metric, unit));
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.add(name, "counter", unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.add(name, "gauge", unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.add(name, "histogram", unit);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn documented_metrics_match_the_recorder() {
    let described = Descriptions::default();
    metrics::with_local_recorder(&described, Jobs::new);
    let recorded = described.0.into_inner().unwrap().into_iter();
    let mut recorded: Vec<_> = recorded
        .map(|(name, metric, unit)| match unit {
            Some(Unit::Count) => format!("| `{name}` | {metric} |"),
            Some(unit) => format!("| `{name}` | {metric}, {} |", unit.as_str()),
            None => panic!("{name} has no unit"),
        })
        .collect();
    let docs = include_str!("../../src/guide/metrics.md").lines();
    let rows = docs.filter(|line| line.starts_with("| `tower_accepted_"));
    let has_webhooks = cfg!(feature = "webhook");
    let rows = rows.filter(|row| has_webhooks || !row.contains("webhook"));
    let has_webhooks = cfg!(feature = "webhook");
    let rows = rows.filter(|row| has_webhooks || !row.contains("`tower_accepted_webhook"));
    let mut documented: Vec<_> = rows
        .map(|row| row.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|")
        .collect();
    recorded.sort();
    documented.sort();
    assert_eq!(recorded, documented);
    assert_eq!(recorded.len(), if has_webhooks { 15 } else { 10 });
}
