//! Streams the status of a job as Server-Sent Events.

use std::{future::pending, pin::pin, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt, poll};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::Value;
use sse_stream::{Sse, SseStream};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_accepted::{AcceptedLayer, Dialect, JobHandle, Jobs, Owner, RequestBody};

use crate::support::*;

type InnerRequest = Request<RequestBody<Body>>;

/// Creates a service that reports a step each second, then responds.
fn steps(
    steps: u32,
) -> impl Service<InnerRequest, Response = Response<Body>, Error = Failed, Future: Send>
+ Clone
+ Send
+ 'static {
    inner(move |_| async move {
        for step in 1..=steps {
            sleep(Duration::from_secs(1)).await;
            JobHandle::current().progress(f64::from(step) / f64::from(steps));
        }
        sleep(Duration::from_secs(1)).await;
        ok("the result")
    })
}

/// Returns the headers and the events of a stream, read by the grammar of the standard. Like an
/// `EventSource`, this skips blocks without data.
async fn events<S, R>(
    service: &S,
    request: Request<Body>,
) -> (http::HeaderMap, impl Stream<Item = Sse>)
where
    S: Service<Request<Body>, Response = Response<R>, Error = Failed> + Clone,
    R: http_body::Body<Data = bytes::Bytes, Error = tower::BoxError>,
{
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (head, body) = response.into_parts();
    assert_eq!(head.headers["content-type"], "text/event-stream");
    let body = body.map_err(|error| std::io::Error::other(error.to_string()));
    let events = SseStream::new(body).filter_map(async |event| {
        let event = event.unwrap();
        event.data.is_some().then_some(event)
    });
    (head.headers, events)
}

fn document(event: &Sse) -> Value {
    serde_json::from_str(event.data.as_deref().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn events_have_rising_ids_and_the_final_document() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let jobs = Jobs::builder().dialect(dialect).build();
        let service = jobs.layer().layer(steps(2));
        let accepted = send(&service, post("/")).await;
        let path = format!("{}/events", accepted.location());
        for request in [
            with(get(accepted.location()), &[("accept", "text/event-stream")]),
            get(&path),
        ] {
            let (headers, events) = events(&service, request).await;
            assert_eq!(headers["cache-control"], "no-store, no-transform");
            assert_eq!(headers["x-accel-buffering"], "no");
            assert_eq!(headers["vary"], "accept, prefer");
            assert!(!headers.contains_key("content-length"));
            let events: Vec<_> = events.collect().await;
            let mut last = 0;
            for event in &events {
                assert_eq!(event.event.as_deref(), Some("status"));
                let id: u64 = event.id.as_deref().unwrap().parse().unwrap();
                assert!(id > last);
                last = id;
            }
            let documents: Vec<_> = events.iter().map(document).collect();
            let end = documents.last().unwrap();
            let status = send(&service, get(&format!("{}/status", accepted.location()))).await;
            assert_eq!(end, &status.json());
            assert_eq!(status.header("etag"), Some(&*format!("\"{last}\"")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_is_one_event() {
    let service = AcceptedLayer::new().layer(steps(2));
    let accepted = send(&service, post("/")).await;
    let (_, events) = events(&service, get(&format!("{}/events", accepted.location()))).await;
    let documents: Vec<_> = events.map(|event| document(&event)).collect().await;
    let seen: Vec<_> = documents
        .iter()
        .map(|document| {
            let status = document["status"].as_str().unwrap();
            (status, document["percentComplete"].as_u64())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("queued", None),
            ("running", None),
            ("running", Some(50)),
            ("running", Some(100)),
            ("succeeded", Some(100)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn reconnect_resumes_after_the_last_event_id() {
    let service = AcceptedLayer::new().layer(steps(2));
    let accepted = send(&service, post("/")).await;
    let path = format!("{}/events", accepted.location());
    let from = |id: &str| with(get(&path), &[("last-event-id", id)]);
    sleep(Duration::from_millis(1_500)).await;
    let (_, all) = events(&service, get(&path)).await;
    let mut all = pin!(all);
    let first = all.next().await.unwrap();
    assert_eq!(document(&first)["percentComplete"], 50);
    let (_, rest) = events(&service, from(first.id.as_deref().unwrap())).await;
    let rest: Vec<_> = rest.collect().await;
    assert_eq!(document(&rest[0])["percentComplete"], 100);
    // The first stream was not read in the meantime, so it skips to the newest document.
    assert_eq!(rest[1..], all.collect::<Vec<_>>().await);
    // An invalid or outdated id has no effect.
    for id in ["1", "x", "99"] {
        let (_, events) = events(&service, from(id)).await;
        assert_eq!(events.collect::<Vec<_>>().await, rest[1..]);
    }
    for path in [&path, accepted.location()] {
        let last = rest[1].id.as_deref().unwrap();
        let again = with(
            get(path),
            &[("accept", "text/event-stream"), ("last-event-id", last)],
        );
        let answer = send(&service, again).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-length"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_stream_has_a_comment_every_15_seconds() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(40)).await;
        ok("")
    }));
    let started = Instant::now();
    let accepted = send(&service, post("/")).await;
    let path = format!("{}/events", accepted.location());
    let response = service.clone().oneshot(get(&path)).await.unwrap();
    let mut body = response.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        let bytes = frame.unwrap().into_data().unwrap();
        frames.push((started.elapsed().as_secs(), bytes));
    }
    assert_eq!(&frames[0].1[..], b"retry: 2000\n\n");
    let comments = frames.iter().filter(|(_, bytes)| bytes.starts_with(b":"));
    assert_eq!(comments.map(|(at, _)| *at).collect::<Vec<_>>(), [15, 30]);
    assert_eq!(frames.last().unwrap().0, 40);
}

#[tokio::test(start_paused = true)]
async fn slow_client_receives_only_the_newest_document() {
    let service = AcceptedLayer::new().layer(steps(1_000));
    let accepted = send(&service, post("/")).await;
    let (_, events) = events(&service, get(&format!("{}/events", accepted.location()))).await;
    let mut events = pin!(events);
    events.next().await.unwrap();
    sleep(Duration::from_millis(500_500)).await;
    let event = events.next().await.unwrap();
    assert_eq!(document(&event)["percentComplete"], 50);
    // The stream buffers no other event.
    assert!(poll!(events.next()).is_pending());
}

#[tokio::test(start_paused = true)]
async fn cancel_or_delete_ends_the_stream() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    for method in ["POST", "DELETE"] {
        let accepted = send(&service, post("/")).await;
        let path = format!("{}/events", accepted.location());
        let (_, events) = events(&service, get(&path)).await;
        let mut events = pin!(events);
        events.next().await.unwrap();
        let target = match method {
            "POST" => format!("{}/cancel", accepted.location()),
            _ => accepted.location().to_owned(),
        };
        send(&service, request(method, &target)).await;
        let last = events.next().await.unwrap();
        assert_eq!(document(&last)["status"], "canceled");
        assert!(events.next().now_or_never().unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_receives_events() {
    let jobs = Jobs::builder()
        .owner(|head| head.headers.get("user").map(Owner::new))
        .build();
    let service = jobs.layer().layer(steps(1));
    let accepted = send(&service, with(post("/"), &[("user", "ada")])).await;
    let path = format!("{}/events", accepted.location());
    for fields in [&[][..], &[("user", "eve")]] {
        let answer = send(&service, with(get(&path), fields)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let (_, events) = events(&service, with(get(&path), &[("user", "ada")])).await;
    assert_eq!(events.count().await, 4);
}

#[tokio::test(start_paused = true)]
async fn head_for_events_responds_at_once() {
    let service = AcceptedLayer::new().layer(steps(10));
    let accepted = send(&service, post("/")).await;
    let path = format!("{}/events", accepted.location());
    let answer = send(&service, request("HEAD", &path)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("content-length"), None);
    let answer = send(&service, post(&path)).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_arrives_as_one_event(
        messages in proptest::collection::vec(
            "(\\PC|[\r\n\0\u{85}\u{2028}\u{feff}: ]){0,40}",
            1..6,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let reported = messages.clone();
        let documents = runtime.block_on(async {
            let service = AcceptedLayer::new().layer(inner(move |_| {
                let reported = reported.clone();
                async move {
                    for message in reported {
                        sleep(Duration::from_secs(1)).await;
                        JobHandle::current().message(message);
                    }
                    sleep(Duration::from_secs(1)).await;
                    ok("")
                }
            }));
            let accepted = send(&service, post("/")).await;
            let path = format!("{}/events", accepted.location());
            let (_, events) = events(&service, get(&path)).await;
            events.map(|event| document(&event)).collect::<Vec<_>>().await
        });
        // Queued, running, and the end, which repeats the last message.
        prop_assert_eq!(documents.len(), messages.len() + 3);
        let received: Vec<_> = documents[2..documents.len() - 1]
            .iter()
            .map(|document| document["message"].as_str().unwrap().to_owned())
            .collect();
        prop_assert_eq!(received, messages);
    }
}

#[test]
fn events_can_be_requested_outside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.unwrap();
    let mut service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = runtime.block_on(send(&service, post("/")));
    let events = service.call(get(&format!("{}/events", accepted.location())));
    let response = runtime.block_on(events).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
}
