//! Bodies that are too large for one message, cannot be read, or have expired.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::join_all;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_accepted::{Jobs, RequestBody};

use crate::{
    server::Servers,
    site::{
        Deployment, assert_end, counting, front, large, options, or_skip, registry, until,
        wait_for_end, work,
    },
    streams::{Acks, REQUESTS, RESULTS, messages, publish, redelivered, stream},
    support::{Body, Counter, Failed, get, inner, ok, post, request, send},
};

#[tokio::test]
async fn request_runs_once_its_body_can_be_read() {
    let nats = or_skip!(Deployment::start(options().inline(1_000)));
    let site = nats.front().await;
    let accepted = send(&site, large("/large")).await;
    let bodies = stream(&nats.servers, REQUESTS).await;
    let chunks = messages(&bodies).await;
    assert_eq!(chunks.len(), 3);
    let jetstream = jetstream::new(nats.servers.client().await);
    jetstream.delete_stream(REQUESTS).await.unwrap();
    let calls = Counter::default();
    let counted = calls.clone();
    let service = inner(move |request: Request<RequestBody<Body>>| {
        counted.up();
        async {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert!(body == vec![7; 600_000]);
            ok("done")
        }
    });
    nats.worker(service).await;
    redelivered(&nats.servers).await;
    let waiting = send(&site, get(accepted.location())).await;
    assert_eq!(waiting.json()["status"], "queued", "{waiting:?}");
    let config = bodies.cached_info().config.clone();
    jetstream.create_stream(config).await.unwrap();
    publish(&nats.servers, chunks).await;
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn request_waits_for_a_missing_body() {
    let nats = or_skip!(Deployment::start(options().inline(1_000)));
    let site = nats.front().await;
    let accepted = send(&site, large("/large")).await;
    let bodies = stream(&nats.servers, REQUESTS).await;
    let chunks = messages(&bodies).await;
    bodies.purge().await.unwrap();
    let calls = Counter::default();
    nats.worker(counting(&calls, "done")).await;
    redelivered(&nats.servers).await;
    assert_eq!(calls.count(), 0);
    publish(&nats.servers, chunks).await;
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn request_with_an_expired_body_is_lost() {
    let options = options().inline(1_000);
    let options = options.max_queued_for(Duration::from_secs(2));
    let nats = or_skip!(Deployment::start(options));
    let site = nats.front().await;
    let accepted = send(&site, large("/large")).await;
    let bodies = stream(&nats.servers, REQUESTS).await;
    until(async || messages(&bodies).await.is_empty()).await;
    let calls = Counter::default();
    nats.worker(counting(&calls, "done")).await;
    assert_end(&site, accepted.location(), "lost").await;
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn unreadable_body_delays_for_longer_than_a_heartbeat() {
    let options = options().inline(1_000).lease(Duration::from_secs(10));
    let nats = or_skip!(Deployment::start(options));
    send(&nats.front().await, large("/large")).await;
    let jetstream = jetstream::new(nats.servers.client().await);
    jetstream.delete_stream(REQUESTS).await.unwrap();
    let mut acks = Acks::subscribe(&nats.servers).await;
    nats.worker(counting(&Counter::default(), "done")).await;
    let delay = acks.delay().await;
    assert!(delay >= Duration::from_secs(5), "{delay:?}");
}

#[tokio::test]
async fn unreadable_result_is_503_until_its_job_is_gone() {
    let options = options().inline(1_000);
    let nats = or_skip!(Deployment::start(options));
    let site = nats.front().await;
    let small = Jobs::builder().max_bytes(100_000);
    let small = small.room_timeout(Duration::from_millis(50));
    let without_room = front(&registry(small, nats.store().await));
    let accepted = send(&site, post("/it")).await;
    let service = inner(async |_| {
        let mut large = ok("")?;
        *large.body_mut() = Body::from(vec![8; 700_000]);
        Ok::<_, Failed>(large)
    });
    nats.worker(service).await;
    wait_for_end(&site, accepted.location()).await;
    let result = || get(&format!("{}/result", accepted.location()));
    assert!(send(&site, result()).await.body == vec![8; 700_000]);
    let full = send(&without_room, result()).await;
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE, "{full:?}");
    assert!(full.header("retry-after").is_some());
    let results = stream(&nats.servers, RESULTS).await;
    results.purge().await.unwrap();
    let missing = send(&site, result()).await;
    let status = missing.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{missing:?}");
    send(&site, request("DELETE", accepted.location())).await;
    let gone = send(&site, result()).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
}

#[tokio::test]
async fn unread_results_leave_room_for_jobs() {
    let nats = or_skip!(Deployment::start(options().inline(1_000)));
    let small = Jobs::builder().max_bytes(4 << 20);
    let small = small.room_timeout(Duration::from_secs(1));
    let jobs = registry(small, nats.store().await);
    let site = front(&jobs);
    work(
        &jobs,
        inner(async |_| {
            let mut large = ok("")?;
            *large.body_mut() = Body::from(vec![8; 800_000]);
            Ok::<_, Failed>(large)
        }),
    );
    let accepted = send(&site, post("/it")).await;
    assert_end(&site, accepted.location(), "succeeded").await;
    let reads = (0..16).map(|_| {
        let result = get(&format!("{}/result", accepted.location()));
        site.clone().oneshot(result)
    });
    let unread = join_all(reads).await;
    let unread: Vec<_> = unread.into_iter().map(Result::unwrap).collect();
    let sent = unread
        .iter()
        .filter(|result| result.status() == StatusCode::OK);
    assert_eq!(sent.count(), 4, "one chunk each in a quarter of the budget");
    let next = send(&site, post("/it")).await;
    assert_end(&site, next.location(), "succeeded").await;
}

#[tokio::test]
async fn message_over_the_server_limit_is_cut_or_refused() {
    let servers = or_skip!(Servers::start_with(1, "max_payload: 64KB", ""));
    let nats = Deployment::new(servers, options());
    let site = nats.front().await;
    let long = HeaderValue::from_str(&"x".repeat(70_000)).unwrap();
    let mut refused = post("/refused");
    refused.headers_mut().insert("x-long", long.clone());
    let refused = send(&site, refused).await;
    let status = refused.status;
    assert_eq!(
        status,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "{refused:?}"
    );
    assert_eq!(
        refused.json()["type"],
        "urn:problem-type:tower-accepted:fields-too-large"
    );
    let large = send(&site, large("/large")).await;
    assert_eq!(large.status, StatusCode::ACCEPTED, "{large:?}");
    let answered = send(&site, post("/long")).await;
    let service = inner(move |request: Request<RequestBody<Body>>| {
        let (is_long, long) = (request.uri().path() == "/long", long.clone());
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = ok("")?;
            if is_long {
                response.headers_mut().insert("x-long", long);
            } else {
                *response.body_mut() = Body::from(body);
            }
            Ok::<_, Failed>(response)
        }
    });
    nats.worker(service).await;
    assert_end(&site, large.location(), "succeeded").await;
    let result = send(&site, get(&format!("{}/result", large.location()))).await;
    assert!(result.body == vec![7; 600_000], "the body has changed");
    assert_end(&site, answered.location(), "result_too_large").await;
}
