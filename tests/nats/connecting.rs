//! Connections: processes that create the streams, and servers that go away.

use std::time::Duration;

use async_nats::jetstream;
use http::StatusCode;
use tokio::task::JoinSet;
use tower_accepted::store::nats::{NatsError, NatsOptions, NatsStore, Storage};

use crate::{
    site::{Deployment, counting, options, or_skip, until, work},
    streams::{BUCKET, DELIVERIES, QUEUE, REQUESTS, RESULTS},
    support::{Counter, get, post, send},
};

/// Connects this many stores at a time.
async fn connect_at_once(nats: &Deployment, count: usize) {
    let mut connecting = JoinSet::new();
    for _ in 0..count {
        let client = nats.servers.client().await;
        connecting.spawn(NatsStore::connect(client, nats.options.clone()));
    }
    while let Some(connected) = connecting.join_next().await {
        connected.unwrap().unwrap();
    }
}

#[tokio::test]
async fn processes_create_the_streams_concurrently() {
    let nats = or_skip!(Deployment::start(options()));
    connect_at_once(&nats, 8).await;
}

#[tokio::test]
async fn other_options_do_not_fit_existing_streams() {
    let nats = or_skip!(Deployment::start(options()));
    nats.store().await;
    let mismatch = async |options: NatsOptions| {
        let client = nats.servers.client().await;
        match NatsStore::connect(client, options).await {
            Err(error @ NatsError::ConfigMismatch { .. }) => error.to_string(),
            other => panic!("the options fit: {other:?}"),
        }
    };
    let error = mismatch(options().retain(Duration::from_secs(7))).await;
    assert!(
        error.starts_with("KV_accepted_jobs has max age 60s, but the options ask for 7s"),
        "{error}"
    );
    let error = mismatch(options().storage(Storage::Memory)).await;
    let expected = "storage File, but the options ask for Memory";
    assert!(error.contains(expected), "{error}");
    let error = mismatch(options().lease(Duration::from_secs(9))).await;
    let expected = "ack wait 1s, but the options ask for 9s";
    assert!(error.contains(expected), "{error}");
    let jetstream = jetstream::new(nats.servers.client().await);
    let queue = jetstream.get_stream(QUEUE).await.unwrap();
    let mut limited = queue.cached_info().config.clone();
    limited.max_bytes = 1 << 20;
    jetstream.update_stream(limited).await.unwrap();
    let error = mismatch(options()).await;
    let expected = "byte limit 1048576, but the options ask for 0";
    assert!(error.contains(expected), "{error}");
    let other_prefix = options().prefix("other").storage(Storage::Memory);
    let connected = NatsStore::connect(nats.servers.client().await, other_prefix).await;
    connected.unwrap();
}

#[tokio::test]
async fn processes_create_the_streams_of_a_new_cluster() {
    let nats = or_skip!(Deployment::cluster(options()));
    // Retried for 15 s, so it runs beside the others.
    let too_many = nats.options.clone().prefix("more").replicas(5);
    let too_many = NatsStore::connect(nats.servers.client().await, too_many);
    let (too_many, ()) = tokio::join!(too_many, connect_at_once(&nats, 6));
    let jetstream = jetstream::new(nats.servers.client().await);
    for name in [QUEUE, BUCKET, REQUESTS, RESULTS, DELIVERIES] {
        let stream = jetstream.get_stream(name).await.unwrap();
        assert_eq!(stream.cached_info().config.num_replicas, 3, "{name}");
    }
    match too_many {
        Err(NatsError::Unavailable(_)) => {}
        other => panic!("three servers keep five replicas: {other:?}"),
    }
}

#[tokio::test]
async fn server_restart_keeps_accepted_jobs() {
    let options = options().ack_timeout(Duration::from_millis(300));
    let mut nats = or_skip!(Deployment::start(options));
    let site = nats.front().await;
    let worker = nats.jobs().await;
    let accepted = send(&site, post("/it")).await;
    nats.servers.kill_node(0);
    let refused = send(&site, post("/it")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
    let unavailable = send(&site, get(accepted.location())).await;
    assert_eq!(unavailable.status, StatusCode::SERVICE_UNAVAILABLE);
    work(&worker, counting(&Counter::default(), "done"));
    nats.servers.start_node(0);
    until(async || {
        let answer = send(&site, get(accepted.location())).await;
        answer.status == StatusCode::OK && answer.json()["status"] == "succeeded"
    })
    .await;
}
