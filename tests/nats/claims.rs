//! Claims: a late, slow or repeated one neither ends a job nor starts it twice.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::sleep};
use tower_accepted::store::Queue;

use crate::{
    site::{Deployment, assert_end, counting, options, or_skip, until, waiting, work},
    streams::{Acks, claim_first, deliver_unclaimed},
    support::{Counter, get, post, request, send},
};

/// A lease that a test outlasts.
const LEASE: Duration = Duration::from_secs(2);

/// A lease that no test outlasts.
const ENDLESS_LEASE: Duration = Duration::from_secs(600);

/// The start of every subject that a first claim is published to.
const CLAIM_SUBJECT: &str = "$KV.accepted_jobs.job.run.";

#[tokio::test]
async fn claim_confirmed_late_holds() {
    let options = options().ack_timeout(Duration::from_millis(200));
    let nats = or_skip!(Deployment::start(options.clone()));
    let (wire, first) = nats.jobs_behind_wire(options).await;
    let second = nats.jobs().await;
    let site = nats.front().await;
    wire.hold_at(CLAIM_SUBJECT);
    let accepted = send(&site, post("/it")).await;
    let (calls, others) = (Counter::default(), Counter::default());
    work(&first, counting(&calls, "first"));
    wire.held().await;
    let mut acks = Acks::subscribe(&nats.servers).await;
    work(&second, counting(&others, "second"));
    // Two leases: without heartbeats, the server would deliver the request again.
    acks.heartbeats(6).await;
    wire.release();
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!((calls.count(), others.count()), (1, 0));
}

#[tokio::test]
async fn claim_confirmed_after_a_drain_is_requeued() {
    let options = options().lease(ENDLESS_LEASE);
    let nats = or_skip!(Deployment::start(options.clone()));
    let (wire, first) = nats.jobs_behind_wire(options).await;
    let site = nats.front().await;
    wire.hold_at(CLAIM_SUBJECT);
    let accepted = send(&site, post("/it")).await;
    let (calls, others) = (Counter::default(), Counter::default());
    let working = work(&first, counting(&calls, "first"));
    wire.held().await;
    assert_eq!(first.drain(Duration::ZERO).await, 1);
    wire.release();
    working.await.unwrap();
    nats.worker(counting(&others, "second")).await;
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!((calls.count(), others.count()), (0, 1));
}

#[tokio::test]
async fn request_delivered_beside_a_new_claim_is_delayed() {
    let nats = or_skip!(Deployment::start(options().lease(LEASE)));
    let [first, second] = [nats.jobs().await, nats.jobs().await];
    let site = nats.front().await;
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    let accepted = send(&site, post("/it")).await;
    work(&first, waiting(&calls, &go, "first"));
    until(async || calls.count() == 1).await;
    // As if an earlier holder, presumed dead, requeued the request.
    let mut acks = Acks::subscribe(&nats.servers).await;
    let client = nats.servers.client().await;
    let subject = "$JS.ACK.accepted_queue.accepted_workers.1.1.1.1.0";
    client.publish(subject, "-NAK".into()).await.unwrap();
    assert_eq!(acks.next().await, "-NAK");
    let others = Counter::default();
    work(&second, counting(&others, "second"));
    let delay = acks.delay().await;
    assert!(delay >= LEASE, "{delay:?}");
    // Longer than the delay: the heartbeats of the first prevent another delivery.
    sleep(delay + LEASE / 2).await;
    go.notify_one();
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!((calls.count(), others.count()), (1, 0));
}

#[tokio::test]
async fn late_claimant_does_not_presume_the_winner_dead() {
    let options = options().lease(LEASE);
    let nats = or_skip!(Deployment::start(options.clone()));
    let patient = options.ack_timeout(Duration::from_secs(60));
    let (wire, late) = nats.jobs_behind_wire(patient).await;
    let site = nats.front().await;
    let accepted = send(&site, post("/it")).await;
    deliver_unclaimed(&nats.servers).await;
    // The late process knows that the job has no record, and reads since when there would be one.
    wire.hold_at("_jobs.turn");
    let calls = Counter::default();
    work(&late, counting(&calls, "late"));
    wire.held().await;
    claim_first(&nats.servers, accepted.id()).await;
    // A claim younger than this is never presumed dead.
    sleep(LEASE / 2).await;
    let mut acks = Acks::subscribe(&nats.servers).await;
    wire.release();
    let delay = acks.delay().await;
    assert!(delay >= LEASE, "{delay:?}");
    let running = send(&site, get(accepted.location())).await;
    assert_eq!(running.json()["status"], "running", "{running:?}");
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn old_ticket_does_not_presume_a_claimant_dead() {
    let nats = or_skip!(Deployment::start(options().lease(LEASE)));
    let site = nats.front().await;
    let store = nats.store().await;
    let accepted = send(&site, post("/it")).await;
    deliver_unclaimed(&nats.servers).await;
    let ticket = store.next(1).await.unwrap().pop().unwrap();
    claim_first(&nats.servers, accepted.id()).await;
    // The request may have been delivered to the claimant since, and the claim is not young.
    sleep(LEASE / 2).await;
    let mut acks = Acks::subscribe(&nats.servers).await;
    assert!(store.claim(ticket).await.unwrap().is_none());
    let delay = acks.delay().await;
    assert!(delay >= LEASE, "{delay:?}");
}

#[tokio::test]
async fn only_a_young_ticket_is_requeued_on_drop() {
    let nats = or_skip!(Deployment::start(options().lease(LEASE)));
    let site = nats.front().await;
    let store = nats.store().await;
    send(&site, post("/it")).await;
    let mut acks = Acks::subscribe(&nats.servers).await;
    drop(store.next(1).await.unwrap());
    assert_eq!(acks.next().await, "-NAK");
    let ticket = store.next(1).await.unwrap();
    sleep(LEASE / 2).await;
    drop(ticket);
    // The lease expires, and no acknowledgment came before.
    let mut again = Vec::new();
    until(async || {
        again = store.next(1).await.unwrap();
        !again.is_empty()
    })
    .await;
    let client = nats.servers.client().await;
    let marker = "$JS.ACK.accepted_queue.marker";
    client.publish(marker, "now".into()).await.unwrap();
    assert_eq!(acks.next().await, "now");
}

#[tokio::test]
async fn unconfirmed_claim_ends_before_records_expire() {
    let options = options().retain(Duration::from_secs(2));
    let nats = or_skip!(Deployment::start(options.clone()));
    let second = nats.jobs().await;
    let impatient = options.ack_timeout(Duration::from_millis(200));
    let (wire, first) = nats.jobs_behind_wire(impatient).await;
    let site = nats.front().await;
    wire.hold_at(CLAIM_SUBJECT);
    let accepted = send(&site, request("PUT", "/it")).await;
    let (calls, others) = (Counter::default(), Counter::default());
    work(&first, counting(&calls, "first"));
    wire.held().await;
    // The first sends heartbeats for as long as it waits for the confirmation.
    work(&second, counting(&others, "second"));
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!((calls.count(), others.count()), (0, 1));
}
