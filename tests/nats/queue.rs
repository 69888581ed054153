//! The queue: how requests enter it, once each, and within its limits.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet};
use tower_accepted::{Filter, JobId, Owner, RequestBody};

use crate::{
    site::{
        Deployment, assert_end, counting, front, hanging, keyed, options, or_skip, owned,
        soon_accepted, until, wait_for_end, waiting, work,
    },
    streams::{BUCKET, QUEUE, messages, publish, stream},
    support::{Body, Counter, get, inner, ok, post, request, send, with},
};

#[tokio::test]
async fn list_spans_several_fetches() {
    const JOBS: usize = 1_100;
    let nats = or_skip!(Deployment::start(options())).with_builder(owned());
    let web = nats.jobs().await;
    let site = front(&web);
    let mut sending = JoinSet::new();
    for _ in 0..JOBS {
        let site = site.clone();
        sending.spawn(async move { send(&site, with(post("/it"), &[("x-user", "me")])).await });
    }
    while let Some(accepted) = sending.join_next().await {
        assert_eq!(accepted.unwrap().status, StatusCode::ACCEPTED);
    }
    let mut filter = Filter::new().owner(Owner::new("me")).limit(400);
    let mut listed = HashSet::new();
    loop {
        let page = web.list(&filter).await.unwrap();
        listed.extend(page.jobs.iter().map(|job| job.id));
        match page.next {
            Some(next) => filter = filter.after(next),
            None => break,
        }
    }
    assert_eq!(listed.len(), JOBS);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Caller {
    name: String,
}

#[derive(Debug, Clone)]
struct LocalOnly;

#[tokio::test]
async fn named_extensions_reach_the_worker() {
    let nats = or_skip!(Deployment::start(options().carry::<Caller>("user")));
    let site = nats.front().await;
    let caller = Caller {
        name: "Zoë".to_owned(),
    };
    let mut request = post("/it");
    request.extensions_mut().insert(caller.clone());
    request.extensions_mut().insert(LocalOnly);
    let accepted = send(&site, request).await;
    let service = inner(move |request: Request<RequestBody<Body>>| {
        assert_eq!(request.extensions().get(), Some(&caller));
        assert!(request.extensions().get::<LocalOnly>().is_none());
        async { ok("done") }
    });
    nats.worker(service).await;
    assert_end(&site, accepted.location(), "succeeded").await;
}

#[tokio::test]
async fn key_without_a_job_creates_it() {
    let nats = or_skip!(Deployment::start(options()));
    let site = nats.front().await;
    let accepted = send(&site, keyed()).await;
    // As if the process had died after it wrote the key.
    let queue = stream(&nats.servers, QUEUE).await;
    queue.purge().await.unwrap();
    let unknown = send(&site, get(accepted.location())).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let repeated = send(&site, keyed()).await;
    assert_eq!(repeated.location(), accepted.location());
    assert_eq!(repeated.header("idempotent-replayed"), Some("true"));
    nats.worker(counting(&Counter::default(), "done")).await;
    assert_end(&site, accepted.location(), "succeeded").await;
}

#[tokio::test]
async fn key_without_a_job_creates_it_on_two_servers() {
    let mut nats = or_skip!(Deployment::cluster(options()));
    let site = nats.front().await;
    let accepted = send(&site, keyed()).await;
    let queue = stream(&nats.servers, QUEUE).await;
    queue.purge().await.unwrap();
    nats.servers.whole(&[QUEUE, BUCKET]).await;
    nats.servers.kill_node(2);
    // The node may have been a leader, so the first requests may fail.
    let mut repeated = None;
    until(async || {
        let answer = send(&site, keyed()).await;
        repeated = (answer.status == StatusCode::ACCEPTED).then(|| answer.location().to_owned());
        repeated.is_some()
    })
    .await;
    assert_eq!(repeated.as_deref(), Some(accepted.location()));
}

#[tokio::test]
async fn repeated_key_requeues_a_job_of_a_dead_process() {
    let nats = or_skip!(Deployment::start(options()));
    let (doomed, first) = nats.accept_inline(&Counter::default(), keyed()).await;
    doomed.shutdown_background();
    // As if the process had died before it queued the request.
    let queue = stream(&nats.servers, QUEUE).await;
    queue.purge().await.unwrap();
    let other = nats.jobs().await;
    let site = front(&other);
    let early = send(&site, keyed()).await;
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE, "{early:?}");
    let calls = Counter::default();
    work(&other, counting(&calls, "done"));
    until(async || send(&site, keyed()).await.status == StatusCode::ACCEPTED).await;
    assert_end(&site, first.location(), "succeeded").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn joined_job_runs_though_its_first_request_failed() {
    let nats = or_skip!(Deployment::start(options()));
    let impatient = options().ack_timeout(Duration::from_millis(500));
    let (wire, first) = nats.jobs_behind_wire(impatient).await;
    let other = nats.jobs().await;
    let first = soon_accepted(&first, hanging(&Counter::default()));
    // The first process queues the request, and gets no acknowledgment.
    wire.hold_at("accepted.queue.");
    let refused = tokio::spawn(async move { send(&first, keyed()).await });
    wire.held().await;
    let site = front(&other);
    let mut joined = None;
    until(async || {
        let answer = send(&site, keyed()).await;
        joined = (answer.status == StatusCode::ACCEPTED).then(|| answer.location().to_owned());
        joined.is_some()
    })
    .await;
    let refused = refused.await.unwrap();
    let status = refused.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    let calls = Counter::default();
    work(&other, counting(&calls, "done"));
    assert_end(&site, &joined.unwrap(), "succeeded").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn queue_accepts_no_more_than_max_queued() {
    const MAX_QUEUED: usize = 5;
    let nats = or_skip!(Deployment::start(options().max_queued(MAX_QUEUED as u64)));
    let site = nats.front().await;
    let mut accepted = Vec::new();
    // A request queued during a count may count twice, until the next one a second later.
    until(async || {
        let answer = send(&site, post("/it")).await;
        if answer.status == StatusCode::ACCEPTED {
            accepted.push(answer.location().to_owned());
        } else {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(
                answer.json()["type"],
                "urn:problem-type:tower-accepted:full"
            );
        }
        accepted.len() == MAX_QUEUED
    })
    .await;
    // The second count comes after the process has read the first.
    let client = nats.servers.client().await;
    let counts = client.subscribe("$JS.API.STREAM.INFO.accepted_queue");
    let mut counts = counts.await.unwrap().take(2);
    client.flush().await.unwrap();
    let counted_twice = async { while counts.next().await.is_some() {} };
    let refused = async {
        loop {
            let full = send(&site, post("/it")).await;
            assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE, "{full:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = counted_twice => {}
        () = refused => {}
    }
    nats.worker(counting(&Counter::default(), "done")).await;
    for location in &accepted {
        wait_for_end(&site, location).await;
    }
    until(async || send(&site, post("/it")).await.status == StatusCode::ACCEPTED).await;
}

#[tokio::test]
async fn request_queued_twice_runs_once() {
    let nats = or_skip!(Deployment::start(options()));
    let site = nats.front().await;
    let accepted = send(&site, post("/it")).await;
    let queue = stream(&nats.servers, QUEUE).await;
    // As if a write had been repeated because its acknowledgment was lost.
    publish(&nats.servers, messages(&queue).await).await;
    assert_eq!(messages(&queue).await.len(), 2);
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    nats.worker(waiting(&calls, &go, "done")).await;
    until(async || messages(&queue).await.len() == 1).await;
    go.notify_one();
    assert_end(&site, accepted.location(), "succeeded").await;
    until(async || messages(&queue).await.is_empty()).await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn canceled_job_in_the_queue_never_runs() {
    let nats = or_skip!(Deployment::start(options()));
    let site = nats.front().await;
    let canceled = send(&site, post("/canceled")).await;
    let deleted = send(&site, post("/deleted")).await;
    let run = send(&site, post("/run")).await;
    let answer = send(&site, post(&format!("{}/cancel", canceled.location()))).await;
    assert_eq!(answer.json()["status"], "canceled", "{answer:?}");
    send(&site, request("DELETE", deleted.location())).await;
    let calls = Counter::default();
    let counted = calls.clone();
    let service = inner(move |request: Request<RequestBody<Body>>| {
        counted.up();
        assert_eq!(request.uri().path(), "/run");
        async { ok("done") }
    });
    nats.worker(service).await;
    wait_for_end(&site, run.location()).await;
    assert_eq!(calls.count(), 1);
    let answer = send(&site, get(canceled.location())).await;
    assert_eq!(answer.json()["status"], "canceled");
    let answer = send(&site, get(deleted.location())).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn leftover_request_leaves_before_its_job_expires() {
    let nats = or_skip!(Deployment::start(options().retain(Duration::from_secs(4))));
    let site = nats.front().await;
    let accepted = send(&site, post("/it")).await;
    let queue = stream(&nats.servers, QUEUE).await;
    let mut leftover = messages(&queue).await;
    send(&site, post(&format!("{}/cancel", accepted.location()))).await;
    assert!(messages(&queue).await.is_empty());
    // As if the removal had failed; and a request that this version cannot read, which stays.
    let unreadable = format!("accepted.queue.{}", JobId::random());
    leftover.push((unreadable, Bytes::from_static(b"?")));
    publish(&nats.servers, leftover).await;
    until(async || messages(&queue).await.len() == 1).await;
    let answer = send(&site, get(accepted.location())).await;
    assert_eq!(answer.json()["status"], "canceled", "{answer:?}");
}
