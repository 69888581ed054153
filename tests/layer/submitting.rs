//! Streams the response of a job to the client that submitted its request.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{Layer, Service};
use tower_accepted::{
    Jobs, Status, When,
    store::{Budget, MemoryStore},
};

use crate::{producing::*, support::*};

const KEY: (&str, &str) = ("idempotency-key", "\"k\"");

/// Returns the monitor's path from a `Link`.
pub(crate) fn monitor(response: &Streamed) -> String {
    let links = response.headers.get_all("link").iter();
    let links = links.map(|link| link.to_str().unwrap());
    let mut monitors = links.filter_map(|link| link.strip_suffix(">; rel=\"monitor\""));
    let monitor = monitors.next().expect("a link to the monitor");
    monitor.strip_prefix('<').unwrap().to_owned()
}

/// Waits until the job at a path has ended, and returns its document.
async fn ended_at<S, R>(service: &S, monitor: &str) -> serde_json::Value
where
    S: Service<http::Request<Body>, Response = Response<R>, Error = Failed> + Clone,
    R: http_body::Body<Data = Bytes, Error = tower::BoxError>,
{
    let request = with(get(monitor), &[("prefer", "wait=50")]);
    let document = send(service, request).await.json();
    assert!(document.get("finishedAt").is_some(), "{document}");
    document
}

#[tokio::test(start_paused = true)]
async fn response_goes_to_its_submitter_as_it_is_produced() {
    let script = Script::default();
    let jobs = Jobs::new();
    let service = jobs.layer().when(When::Streamed).layer(script.service());
    let head = text()
        .status(201)
        .header("set-cookie", "a=b")
        .header("link", "<own>; rel=\"next\"");
    let producer = script.respond(head);
    let mut response = open(&service, post("/")).await;
    assert_eq!(response.status, StatusCode::CREATED);
    assert_eq!(response.header("set-cookie"), Some("a=b"));
    for name in ["cache-control", "x-content-type-options", "asyncresult"] {
        assert_eq!(response.header(name), None, "unchanged: {name}");
    }
    assert_eq!(response.header("link"), Some("<own>; rel=\"next\""));
    assert_eq!(response.header("vary"), Some("prefer"));
    let monitor = monitor(&response);
    assert_eq!(jobs.unfinished(), 1, "a job from the start");
    assert!(response.is_pending().await);
    for number in 0..100 {
        let chunk = format!("chunk {number}\n");
        producer.send(chunk.clone());
        assert_eq!(response.next(chunk.len()).await, chunk);
    }
    let document = send(&service, get(&monitor)).await.json();
    assert_eq!(document["status"], "running");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    producer.end_with(trailers.clone());
    let rest = response.body.collect().await.unwrap();
    assert_eq!(rest.trailers(), Some(&trailers));
    assert!(rest.to_bytes().is_empty());
    let document = ended_at(&service, &monitor).await;
    assert_eq!(document["status"], "succeeded");
    let result = send(&service, get(&format!("{monitor}/result"))).await;
    assert_eq!(result.header("set-cookie"), None);
    assert_eq!(
        result.body.len() as u64,
        document["response"]["contentLength"]
    );
    assert_eq!(result.trailers, Some(trailers));
}

#[tokio::test(start_paused = true)]
async fn client_that_hangs_up_reads_on_later() {
    for with_key in [false, true] {
        let script = Script::default();
        let jobs = Jobs::new();
        let service = jobs.layer().when(When::Streamed).layer(script.service());
        let producer = script.respond(text());
        let fields = if with_key { &[KEY][..] } else { &[] };
        let mut response = open(&service, with(post("/"), fields)).await;
        let monitor = monitor(&response);
        producer.send("first, ");
        assert_eq!(response.next(7).await, "first, ");
        drop(response);
        producer.send("second, ");
        let mut resumed = open(&service, get(&format!("{monitor}/stream?offset=7"))).await;
        assert_eq!(resumed.next(8).await, "second, ");
        let mut joined = None;
        if with_key {
            let mut response = open(&service, with(post("/"), fields)).await;
            assert_eq!(response.header("idempotent-replayed"), Some("true"));
            assert_eq!(response.next(15).await, "first, second, ");
            joined = Some(response);
        }
        producer.send("third");
        drop(producer);
        assert_eq!(resumed.rest().await, (Bytes::from("third"), false));
        if let Some(joined) = joined {
            assert_eq!(joined.rest().await, (Bytes::from("third"), false));
            let again = send(&service, with(post("/"), fields)).await;
            assert_eq!(again.text(), "first, second, third");
        }
        assert_eq!(ended_at(&service, &monitor).await["status"], "succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn preferences_choose_a_202_or_the_stream() {
    let script = Script::default();
    let jobs = Jobs::new();
    let service = jobs.layer().when(When::Streamed).layer(script.service());
    let prefer = |value: &'static str| with(post("/"), &[("prefer", value)]);
    let accepted = send(&service, prefer("respond-async")).await;
    assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
    let started = Instant::now();
    let accepted = send(&service, prefer("respond-async, wait=2")).await;
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    for value in ["wait=2", "respond-async, wait=2"] {
        let _first = script.respond(text());
        let _second = script.respond(text());
        sleep(Duration::from_secs(1)).await;
        let producer = script.respond(text());
        let response = open(&service, prefer(value)).await;
        assert_eq!(response.status, StatusCode::OK, "{value}");
        monitor(&response);
        drop(producer);
    }
}

#[tokio::test(start_paused = true)]
async fn keyed_response_under_after_is_streamed() {
    let delay = Duration::from_millis(300);
    let script = Script::default();
    let jobs = Jobs::new();
    let service = jobs
        .layer()
        .when(When::After(delay))
        .layer(script.service());
    let producer = script.respond(text().header("set-cookie", "a=b"));
    let started = Instant::now();
    let mut response = open(&service, with(post("/"), &[KEY])).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.header("set-cookie"), Some("a=b"));
    let monitor = monitor(&response);
    producer.send("first");
    assert_eq!(response.next(5).await, "first");
    assert!(started.elapsed() < delay, "before the rest is made");
    sleep(Duration::from_secs(10)).await;
    producer.send("last");
    drop(producer);
    assert_eq!(response.rest().await, (Bytes::from("last"), false));
    ended_at(&service, &monitor).await;
    // A head that comes later is not awaited.
    let other = with(post("/"), &[("idempotency-key", "\"other\"")]);
    let started = Instant::now();
    let accepted = send(&service, other).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(started.elapsed(), delay);
}

#[tokio::test(start_paused = true)]
async fn request_that_cannot_be_a_job_passes_through() {
    let script = Script::default();
    let jobs = Jobs::builder().max_unfinished(1).build();
    let service = jobs.layer().when(When::Streamed).layer(script.service());
    let first = script.respond(text());
    let held = open(&service, post("/")).await;
    for draining in [false, true] {
        let producer = script.respond(text());
        producer.send("passed");
        drop(producer);
        let passed = send(&service, post("/")).await;
        assert_eq!((passed.status, passed.text()), (StatusCode::OK, "passed"));
        assert_eq!(passed.header("link"), None);
        let keyed = send(&service, with(post("/"), &[KEY])).await;
        assert_eq!(keyed.status, StatusCode::SERVICE_UNAVAILABLE);
        if !draining {
            let jobs = jobs.clone();
            tokio::spawn(async move { jobs.drain(Duration::from_secs(600)).await });
            sleep(Duration::from_millis(1)).await;
        }
    }
    drop(first);
    assert_eq!(held.rest().await, (Bytes::new(), false));
}

#[tokio::test(start_paused = true)]
async fn safe_method_is_streamed_if_a_closure_says_so() {
    let script = Script::default();
    let jobs = Jobs::new();
    let layer = jobs.layer().when_fn(|head| match head.method {
        Method::GET => When::Streamed,
        _ => When::Never,
    });
    let layer = layer.any_method();
    let service = layer.layer(script.service());
    drop(script.respond(text()));
    let response = open(&service, get("/export")).await;
    monitor(&response);
    assert_eq!(response.rest().await, (Bytes::new(), false));
}

#[tokio::test(start_paused = true)]
async fn job_without_a_head_is_a_problem() {
    let jobs = Jobs::new();
    let layer = jobs.layer().when(When::Streamed);
    let failing = layer.layer(inner(async |_| Err::<Response<Body>, _>(Failed)));
    let slowly = layer.layer(inner(async |_| {
        sleep(Duration::from_secs(1)).await;
        Err::<Response<Body>, _>(Failed)
    }));
    for answer in [
        send(&failing, post("/")).await,
        send(&slowly, post("/")).await,
    ] {
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.json()["code"], "inner_error");
        assert!(answer.header("link").is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn output_that_breaks_breaks_for_its_submitter() {
    let script = Script::default();
    let service = Jobs::new()
        .layer()
        .when(When::Streamed)
        .layer(script.service());
    let producer = script.respond(text());
    let response = open(&service, post("/")).await;
    let monitor = monitor(&response);
    producer.send("begun");
    producer.fail();
    assert_eq!(response.rest().await, (Bytes::from("begun"), true));
    let document = ended_at(&service, &monitor).await;
    assert_eq!(document["partial"]["contentLength"], 5);
}

#[tokio::test(start_paused = true)]
async fn known_length_frames_the_response() {
    let service = Jobs::new().layer().when(When::Streamed);
    let service = service.layer(inner(async |_| ok("a whole response")));
    let response = open(&service, post("/")).await;
    let hint = http_body::Body::size_hint(&response.body);
    assert_eq!(hint.exact(), Some(16));
    assert_eq!(response.rest().await.0, "a whole response");
}

/// Returns `count` chunks of 1,000 bytes, each with its number.
pub(crate) fn chunks(count: usize) -> Vec<Bytes> {
    let chunk = |number| format!("{number:01000}").into();
    (0..count).map(chunk).collect()
}

#[tokio::test(start_paused = true)]
async fn submitter_that_falls_behind_loses_nothing() {
    let script = Script::default();
    let service = Jobs::new()
        .layer()
        .when(When::Streamed)
        .layer(script.service());
    for breaks in [false, true] {
        let producer = script.respond(text());
        let mut response = open(&service, post("/")).await;
        let chunks = chunks(2_000);
        for chunk in &chunks[..1_500] {
            producer.send(chunk.clone());
        }
        sleep(Duration::from_secs(1)).await;
        let first = response.next(1_000).await;
        for chunk in &chunks[1_500..] {
            producer.send(chunk.clone());
        }
        if breaks {
            producer.fail();
        } else {
            drop(producer);
        }
        let (rest, is_broken) = response.rest().await;
        assert!([first, rest].concat() == chunks.concat());
        assert_eq!(is_broken, breaks);
    }
}

#[tokio::test(start_paused = true)]
async fn output_beyond_a_limit_goes_to_its_submitter_alone() {
    for (is_slow, is_budget) in [(false, false), (true, false), (false, true), (true, true)] {
        let script = Script::default();
        let store = MemoryStore::new(Duration::from_secs(600), Budget::new(2 << 20));
        let mut jobs = Jobs::builder().room_timeout(Duration::from_secs(1));
        if !is_budget {
            jobs = jobs.max_result(300_000);
        }
        let jobs = jobs.store(store).build();
        let service = jobs.layer().when(When::Streamed).layer(script.service());
        // Takes the room of responses.
        let mut held = Vec::new();
        if is_budget {
            let producer = script.respond(text());
            let mut response = open(&service, post("/")).await;
            for chunk in chunks(700) {
                producer.send(chunk);
                response.next(1_000).await;
            }
            held.push((producer, response));
        }
        let producer = script.respond(text());
        let mut response = open(&service, post("/")).await;
        let monitor = monitor(&response);
        let chunks = chunks(1_000);
        let whole = Bytes::from(chunks.concat());
        let mut read = Vec::new();
        for chunk in chunks {
            producer.send(chunk);
            if !is_slow {
                read.extend_from_slice(&response.next(1_000).await);
            }
        }
        drop(producer);
        if is_slow {
            sleep(Duration::from_secs(5)).await;
        }
        let document = ended_at(&service, &monitor).await;
        assert_eq!(document["error"]["code"], "result_too_large");
        let kept = document["partial"]["contentLength"].as_u64().unwrap() as usize;
        assert!((1..1_000_000).contains(&kept), "{kept}");
        let (rest, is_broken) = response.rest().await;
        read.extend_from_slice(&rest);
        assert!(
            read == whole && !is_broken,
            "{is_slow} {is_budget}: {}",
            read.len()
        );
        let part = open(&service, get(&format!("{monitor}/stream"))).await;
        assert_eq!(part.rest().await, (whole.slice(..kept), true));
    }
}

#[tokio::test(start_paused = true)]
async fn call_beyond_a_limit_ends_with_its_submitter() {
    let dropped = Counter::default();
    let jobs = Jobs::builder().max_result(10).build();
    let service = jobs.layer().when(When::Streamed).layer(inner({
        let dropped = dropped.clone();
        move |_| {
            let guard = OnDrop(dropped.clone());
            async move {
                let frames = futures_util::stream::repeat(Bytes::from(vec![b'x'; 1_000]));
                let frames = frames.map(move |frame| {
                    let _held = &guard;
                    Ok::<_, Failed>(frame)
                });
                Ok(Response::new(Body::from_stream(frames)))
            }
        }
    }));
    let mut response = open(&service, post("/")).await;
    assert_eq!(response.next(500_000).await.len(), 500_000);
    assert_eq!((dropped.count(), jobs.unfinished()), (0, 1));
    drop(response);
    sleep(Duration::from_millis(1)).await;
    assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn quiet_call_beyond_a_limit_ends_with_its_submitter() {
    for hangs_up in [true, false] {
        let limit = Duration::from_secs(60);
        let jobs = Jobs::builder().max_result(10).job_timeout(limit).build();
        let script = Script::default();
        let service = jobs.layer().when(When::Streamed).layer(script.service());
        let producer = script.respond(text());
        let mut response = open(&service, post("/")).await;
        producer.send("more than ten bytes");
        assert_eq!(response.next(19).await, "more than ten bytes");
        assert_eq!(jobs.unfinished(), 1);
        if hangs_up {
            drop(response);
            sleep(Duration::from_millis(1)).await;
        } else {
            sleep(limit).await;
            assert_eq!(response.rest().await, (Bytes::new(), true));
        }
        assert_eq!(jobs.unfinished(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn status_without_content_has_no_length() {
    for fields in [&[][..], &[KEY]] {
        let jobs = Jobs::new();
        let layer = jobs.layer();
        let layer = match fields {
            [] => layer.when(When::Streamed),
            _ => layer.when(When::After(Duration::from_secs(1))),
        };
        let service = layer.layer(inner(async |_| {
            let response = Response::builder().status(204).body(Body::default());
            Ok(response.unwrap())
        }));
        let response = open(&service, with(post("/"), fields)).await;
        assert_eq!(response.status, StatusCode::NO_CONTENT);
        let hint = http_body::Body::size_hint(&response.body);
        assert_eq!(hint.exact(), None);
        assert_eq!(response.header("content-length"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_before_the_head_drops_no_call() {
    let jobs = Jobs::new();
    let layer = jobs.layer().when(When::Streamed);
    let service = layer.layer(inner(async |_| {
        sleep(Duration::from_secs(5)).await;
        ok("done")
    }));
    let response = open(&service, post("/"));
    assert!(timeout(Duration::from_secs(1), response).await.is_err());
    assert_eq!(jobs.unfinished(), 1);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(jobs.unfinished(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_streamed_jobs_and_stops_them() {
    let jobs = Jobs::new();
    let layer = jobs.layer().when(When::Streamed);
    let service = layer.layer(inner(async |_| {
        let frames = futures_util::stream::once(pending::<Result<Bytes, Failed>>());
        Ok(Response::new(Body::from_stream(frames)))
    }));
    let response = open(&service, post("/")).await;
    let monitor = monitor(&response);
    let left = jobs.drain(Duration::from_secs(3)).await;
    assert_eq!(left, 1);
    assert!(response.rest().await.1, "broken");
    let document = ended_at(&service, &monitor).await;
    assert_eq!(document["error"]["code"], "shutdown");
    let id = monitor.rsplit_once('/').unwrap().1.parse().unwrap();
    let job = jobs.get(id).await.unwrap();
    assert_eq!(job.map(|job| job.status), Some(Status::Failed));
    advance(Duration::from_secs(1)).await;
}
