//! Observers get each change through the events of this crate's monitor.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tower::{Layer, Service, service_fn};
use tower_accepted::{
    Dialect, JobHandle, Jobs, RequestBody,
    follow::{FollowAcceptedLayer, Update},
};

use crate::support::*;

/// The number of steps that a job reports, a second each.
const STEPS: u32 = 20;

/// Creates an observing layer, and returns what the observer gets.
fn observing() -> (
    FollowAcceptedLayer,
    mpsc::UnboundedReceiver<(Update, Instant)>,
) {
    let (sender, updates) = mpsc::unbounded_channel();
    let layer = FollowAcceptedLayer::new().on_update(move |update| {
        let _ = sender.send((update, Instant::now()));
    });
    (layer, updates)
}

fn percents(updates: &mut mpsc::UnboundedReceiver<(Update, Instant)>) -> Vec<f64> {
    let all = std::iter::from_fn(|| updates.try_recv().ok());
    all.filter_map(|(update, _)| update.percent).collect()
}

/// Creates a server whose jobs report each step.
fn stepping(
    jobs: &Jobs,
) -> impl Service<
    http::Request<Body>,
    Response = Response<tower_accepted::ResponseBody<Content>>,
    Error = Broken,
    Future: Send,
> + Clone
+ Send
+ 'static {
    jobs.layer()
        .layer(service_fn(async |_: http::Request<RequestBody<Body>>| {
            let job = JobHandle::current();
            for step in 1..=STEPS {
                sleep(seconds(1)).await;
                job.progress(f64::from(step) / f64::from(STEPS));
            }
            sleep(seconds(1)).await;
            Ok(Response::new(content("the report")))
        }))
}

#[tokio::test(start_paused = true)]
async fn observer_gets_each_step_when_it_happens() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let jobs = Jobs::builder().dialect(dialect).build();
        let (layer, mut updates) = observing();
        let start = Instant::now();
        let answer = follow(&layer, stepping(&jobs), request("POST", REPORTS)).await;
        assert_eq!(answer.expect("a response").text(), "the report");
        assert_eq!(
            start.elapsed().as_secs(),
            u64::from(STEPS) + 1,
            "{dialect:?}"
        );
        let mut seen = Vec::new();
        while let Ok((update, at)) = updates.try_recv() {
            if let Some(percent) = update.percent {
                seen.push((percent, at.duration_since(start).as_secs_f64().round()));
            }
        }
        let steps = (1..=STEPS).map(|step| (f64::from(step * 5), f64::from(step)));
        seen.truncate(STEPS as usize);
        assert_eq!(seen, steps.collect::<Vec<_>>(), "{dialect:?}");
    }
}

/// A monitor, as in the 202 of this crate's server.
fn accepted() -> Reply {
    reply(202)
        .with("location", "/jobs/1")
        .with("link", "</jobs/1>; rel=\"monitor\"")
        .with("retry-after", "3")
}

fn percent(percent: u8) -> String {
    json!({ "status": "running", "percentComplete": percent }).to_string()
}

/// Creates the event of a document.
fn event(document: &str) -> String {
    format!("event: status\nid: 1\ndata: {document}\n\n")
}

/// A part of a stream, or its break, and the second at which it comes.
type Part = (u64, Result<String, Broken>);

/// Creates a response with these parts of an event stream, each at its second.
fn events(parts: impl IntoIterator<Item = Part>) -> Reply {
    let start = Instant::now();
    let parts: Vec<_> = parts.into_iter().collect();
    let parts = futures_util::stream::unfold(parts.into_iter(), move |mut parts| async move {
        let (at, part) = parts.next()?;
        tokio::time::sleep_until(start + seconds(at)).await;
        Some((part.map(|part| Frame::data(Bytes::from(part))), parts))
    });
    let body = StreamBody::new(parts).boxed_unsync();
    reply(200)
        .with("content-type", "text/event-stream; charset=utf-8")
        .stream(body)
}

fn is_events(seen: &Seen) -> bool {
    seen.header("accept") == Some("text/event-stream")
}

#[tokio::test(start_paused = true)]
async fn polls_replace_events_that_there_are_none_of() {
    let refusals: [fn() -> Reply; 5] = [
        || document(json!({ "status": "running", "percentComplete": 7 })),
        || reply(406),
        || broken("no connection"),
        || events([]).with("content-encoding", "br"),
        || reply(408),
    ];
    for refuse in refusals {
        let (server, log) = serve(move |seen| match seen.method.as_str() {
            "POST" => accepted(),
            _ if is_events(seen) => refuse(),
            _ if seen.line() == "GET /jobs/1" => document(json!({ "status": "succeeded" })),
            _ => panic!("{}", seen.line()),
        });
        let (layer, _updates) = observing();
        let answer = follow(&layer, server, request("POST", REPORTS)).await;
        answer.expect("a response");
        // The first poll is at the time that the 202 named.
        assert_eq!(log.gaps(), [Duration::ZERO, seconds(3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_refusal_is_obeyed() {
    let (server, log) = script([
        accepted(),
        reply(503).with("retry-after", "9"),
        document(json!({ "status": "succeeded" })),
    ]);
    let (layer, _updates) = observing();
    let answer = follow(&layer, server, request("POST", REPORTS)).await;
    answer.expect("a response");
    assert_eq!(log.gaps(), [Duration::ZERO, seconds(9)]);
}

#[tokio::test(start_paused = true)]
async fn polls_go_on_after_a_stream_that_breaks() {
    let endings: [fn() -> Vec<Part>; 4] = [
        Vec::new,
        || vec![(6, Err(Broken("cut off")))],
        // It is silent for too long.
        || vec![(200, Ok(event(&percent(40))))],
        // It is larger than a document may be.
        || vec![(5, Ok(event(&percent(40)).repeat(1000).replace('\n', " ")))],
    ];
    for ending in endings {
        let (server, log) = serve(move |seen| match seen.method.as_str() {
            "POST" => accepted(),
            _ if is_events(seen) => {
                let begin = [
                    (0, Ok("retry: 2000\n\n".into())),
                    (1, Ok(event(&percent(10)))),
                ];
                events(
                    begin
                        .into_iter()
                        .chain([(4, Ok(event(&percent(20))))])
                        .chain(ending()),
                )
            }
            _ => document(json!({ "status": "succeeded", "percentComplete": 100 })),
        });
        let (layer, mut updates) = observing();
        let layer = layer.max_document(2_000);
        let answer = follow(&layer, server, request("POST", REPORTS)).await;
        answer.expect("a response");
        assert_eq!(percents(&mut updates), [10.0, 20.0, 100.0]);
        assert_eq!(log.all().len(), 3, "events are asked for once");
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_for_observers_and_this_crates_monitors() {
    let (server, log) = script([accepted(), document(json!({ "status": "succeeded" }))]);
    post(server).await.expect("a response");
    assert!(!log.all().iter().any(is_events));
    let azure = reply(202).with("operation-location", "/jobs/1");
    let (server, log) = script([azure, document(json!({ "status": "succeeded" }))]);
    let (layer, _updates) = observing();
    let answer = follow(&layer, server, request("POST", REPORTS)).await;
    answer.expect("a response");
    assert!(!log.all().iter().any(is_events));
}

#[tokio::test(start_paused = true)]
async fn timeout_applies_to_events() {
    let (server, _) = serve(|seen| match seen.method.as_str() {
        "POST" => accepted(),
        _ => events((0..1000).map(|at| (at * 10, Ok(":\n\n".to_owned())))),
    });
    let (layer, _updates) = observing();
    let start = Instant::now();
    let layer = layer.timeout(seconds(90));
    failure(follow(&layer, server, request("POST", REPORTS)).await);
    assert_eq!(start.elapsed(), seconds(90));
}
