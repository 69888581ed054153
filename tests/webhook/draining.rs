//! Deliveries while the application shuts down.

use std::time::Duration;

use http::StatusCode;
use tokio::runtime::Handle;
use tower_accepted::webhook::{EventType, Secret, Target};

use crate::kit::{LONG, RawReceiver, Receiver, SHORT, Site, notifying, until};

#[tokio::test]
async fn drain_delivers_what_is_due() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    // More than its share of connections, and more than its rate allows at once.
    let webhooks = notifying(&secret, [Target::new(&receiver.url)])
        .max_connections_per_receiver(2)
        .max_rate_per_receiver(40);
    let site = Site::notifying(webhooks);
    for _ in 0..60 {
        site.submit("/reports").await;
    }
    let running = site.submit("/gated").await;
    let drained = tokio::spawn({
        let jobs = site.jobs.clone();
        async move { jobs.drain(LONG).await }
    });
    site.gate.notify_one();
    assert_eq!(drained.await.expect("no panic"), 0);
    let mut ids = std::collections::HashSet::new();
    while ids.len() < 61 {
        assert!(ids.insert(receiver.next().await.field("webhook-id").to_owned()));
    }
    assert!(ids.contains(&format!("{}_0", running.id())));
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn drain_waits_for_no_later_attempt() {
    let mut receiver = Receiver::start(|_| StatusCode::BAD_GATEWAY).await;
    let webhooks = notifying(&Secret::generate(), [Target::new(&receiver.url)]);
    let site = Site::notifying(webhooks.retry_delays([LONG]));
    let accepted = site.submit("/reports").await;
    // An hour would end the test.
    site.jobs.drain(LONG * 2).await;
    receiver.next().await;
    let delivery = site.delivery(&accepted, "pending").await;
    assert_eq!(delivery["attempts"], 1);
}

#[tokio::test]
async fn nothing_is_sent_after_a_drain() {
    let mut live = Receiver::start(|_| StatusCode::BAD_GATEWAY).await;
    let silent = RawReceiver::hanging().await;
    let targets = [
        Target::new(&live.url),
        Target::new(silent.url()).events([EventType::JobStarted, EventType::JobSucceeded]),
    ];
    let webhooks = notifying(&Secret::generate(), targets).retry_delays([SHORT; 3]);
    let site = Site::notifying(webhooks.timeout(LONG));
    let accepted = site.submit("/reports").await;
    live.next().await;
    until("a connection", || silent.connections() >= 1).await;
    // The timeout of an attempt is much longer.
    site.jobs.drain(Duration::from_millis(300)).await;
    let connections = silent.connections();
    while !live.is_idle() {
        // Those that came before.
    }
    let id = format!("{}_1", accepted.id()).parse().expect("an id");
    assert!(site.jobs.redeliver(id).await.expect("no error"));
    // The second drain has nothing to wait for.
    site.jobs.drain(LONG).await;
    // Time for several of the attempts that must not come.
    tokio::time::sleep(SHORT * 20).await;
    assert_eq!(silent.connections(), connections);
    assert!(live.is_idle());
}

#[tokio::test]
async fn dropped_drain_can_be_called_again() {
    let mut receiver = Receiver::taking().await;
    let silent = RawReceiver::hanging().await;
    let targets = [Target::new(silent.url()), Target::new(&receiver.url)];
    let webhooks = notifying(&Secret::generate(), targets).timeout(LONG);
    let site = Site::notifying(webhooks);
    site.submit("/reports").await;
    receiver.next().await;
    until("a connection", || silent.connections() == 1).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let drain = tokio::time::timeout(Duration::from_millis(20), site.jobs.drain(LONG));
    assert!(drain.await.is_err());
    let before = tasks();
    site.jobs.drain(Duration::from_millis(50)).await;
    assert!(tasks() < before, "the task that sends has ended");
}

#[tokio::test]
async fn last_handle_ends_all_tasks() {
    let silent = RawReceiver::hanging().await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let targets =
        [Target::new(silent.url()).events([EventType::JobStarted, EventType::JobCanceled])];
    let webhooks = notifying(&Secret::generate(), targets).timeout(LONG);
    let site = Site::notifying(webhooks);
    let accepted = site.submit("/gated").await;
    until("job.started", || silent.connections() == 1).await;
    site.jobs.cancel(accepted.id()).await.expect("no error");
    until("job.canceled", || silent.connections() == 2).await;
    assert!(tasks() > before);
    drop(site);
    drop(silent);
    until("all tasks to end", || tasks() < before).await;
}
