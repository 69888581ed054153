//! Idempotency keys: how many are remembered, and which outcomes they keep.

use std::time::Duration;

use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use tokio::{select, time::sleep};
use tower::Layer;
use tower_accepted::{Idempotency, Outcomes, RequestBody, Unreached};

use crate::{
    site::{Deployment, counting, keyed, options, or_skip, until, wait_for_end},
    streams::{KEYS, messages, stream},
    support::{Body, Counter, Failed, inner, post, request, send, with},
};

fn with_key(key: &str) -> Request<Body> {
    with(post("/it"), &[("idempotency-key", key)])
}

#[tokio::test]
async fn key_beyond_the_limit_is_refused() {
    let nats = or_skip!(Deployment::start(options().max_keys(2)));
    let site = nats.front().await;
    let first = send(&site, with_key("one")).await;
    until(async || send(&site, with_key("two")).await.status == StatusCode::ACCEPTED).await;
    // The second count comes after the process has read the first.
    let client = nats.servers.client().await;
    let counts = client.subscribe("$JS.API.STREAM.INFO.KV_accepted_keys");
    let mut counts = counts.await.unwrap().take(2);
    client.flush().await.unwrap();
    let counted_twice = async { while counts.next().await.is_some() {} };
    let refused = async {
        loop {
            let full = send(&site, with_key("three")).await;
            assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE, "{full:?}");
            let kind = "urn:problem-type:tower-accepted:full";
            assert_eq!(full.json()["type"], kind);
            let joined = send(&site, with_key("one")).await;
            assert_eq!(joined.location(), first.location());
            send(&site, post("/it")).await.location();
            sleep(Duration::from_millis(20)).await;
        }
    };
    select! {
        () = counted_twice => {}
        () = refused => {}
    }
    // A deleted job frees its key.
    send(&site, request("DELETE", first.location())).await;
    until(async || send(&site, with_key("three")).await.status == StatusCode::ACCEPTED).await;
}

#[tokio::test]
async fn worker_knows_the_outcomes_that_a_key_keeps() {
    let nats = or_skip!(Deployment::start(options()));
    let jobs = nats.jobs().await;
    let service = inner(async |request: Request<RequestBody<Body>>| {
        let response = match request.uri().path() {
            "/unreached" => Response::builder().status(502).extension(Unreached),
            path => Response::builder().status(path.trim_start_matches('/')),
        };
        Ok::<_, Failed>(response.body(Body::empty()).unwrap())
    });
    nats.worker(service).await;
    let at = |path: &str| with(post(path), &[("idempotency-key", path)]);
    for (outcomes, path, is_kept) in [
        (Outcomes::Final, "/500", false),
        (Outcomes::Final, "/404", true),
        (Outcomes::All, "/503", true),
        (Outcomes::All, "/unreached", false),
    ] {
        let layer = jobs.layer().idempotency(Idempotency::new().keep(outcomes));
        let site = layer.layer(counting(&Counter::default(), "front"));
        let first = send(&site, at(path)).await.location().to_owned();
        wait_for_end(&site, &first).await;
        let second = send(&site, at(path)).await.location().to_owned();
        assert_eq!(first == second, is_kept, "{path}");
    }
}

#[tokio::test]
async fn key_of_a_running_job_is_renewed() {
    let options = options()
        .retain(Duration::from_secs(1))
        .keep_keys_for(Duration::from_secs(2));
    let nats = or_skip!(Deployment::start(options));
    let site = nats.front().await;
    let accepted = send(&site, keyed()).await;
    let keys = stream(&nats.servers, KEYS).await;
    let written = messages(&keys).await;
    assert_eq!(written.len(), 1);
    // Renewed twice, so the first message would have expired.
    for renewed in 2..=3 {
        until(async || keys.get_info().await.unwrap().state.last_sequence >= renewed).await;
    }
    assert_eq!(messages(&keys).await, written);
    assert_eq!(send(&site, keyed()).await.location(), accepted.location());
}
