//! Connections that receivers share.

use http::StatusCode;
use tower_accepted::{
    store::DeliveryFilter,
    webhook::{Secret, Target},
};

use crate::kit::{LONG, RawReceiver, Receiver, SHORT, Site, notifying, until, webhooks};

/// Returns webhooks to the receiver that a request names in its path.
fn named(urls: Vec<String>) -> tower_accepted::webhook::Webhooks {
    webhooks(&Secret::generate()).targets(move |head| {
        let number: usize = head.uri.path()[1..].parse().expect("a number");
        vec![Target::new(&urls[number])]
    })
}

#[tokio::test]
async fn silent_receivers_do_not_delay_others() {
    let mut live = Receiver::taking().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(RawReceiver::hanging().await);
    }
    let mut urls: Vec<_> = silent.iter().map(RawReceiver::url).collect();
    urls.push(live.url.clone());
    // Far fewer connections than deliveries to the silent ones.
    let site = Site::notifying(named(urls).timeout(LONG).max_connections(20));
    site.submit("/50").await;
    live.next().await;
    for _ in 0..4 {
        for number in 0..50 {
            site.submit(&format!("/{number}")).await;
        }
    }
    let connections = || silent.iter().map(RawReceiver::connections).sum::<usize>();
    until("all that silent ones may have", || connections() == 10).await;
    for _ in 0..30 {
        site.submit("/50").await;
        live.next().await;
    }
    // None of the silent ones has given back a connection meanwhile.
    assert_eq!(connections(), 10);
    let pending = DeliveryFilter::new().pending().limit(1_000);
    let page = site.jobs.deliveries(&pending).await.expect("no error");
    let is_silent = |url: &str| !url.starts_with(&live.url);
    assert_eq!(
        page.deliveries
            .iter()
            .filter(|it| is_silent(&it.url))
            .count(),
        200
    );
}

#[tokio::test]
async fn receiver_has_no_more_than_its_share() {
    let silent = RawReceiver::hanging().await;
    let webhooks = notifying(&Secret::generate(), [Target::new(silent.url())]);
    let webhooks = webhooks.timeout(LONG).max_connections_per_receiver(3);
    let site = Site::notifying(webhooks);
    let mut last = site.submit("/reports").await;
    for _ in 0..40 {
        last = site.submit("/reports").await;
    }
    site.ended(&last).await;
    until("its share", || silent.connections() == 3).await;
    // Another receiver's delivery goes through the same courier later.
    site.jobs.drain(std::time::Duration::from_millis(100)).await;
    assert_eq!(silent.connections(), 3);
}

#[tokio::test]
async fn suspended_receiver_is_not_connected() {
    let mut failing = Receiver::start(|_| StatusCode::BAD_GATEWAY).await;
    let webhooks = notifying(&Secret::generate(), [Target::new(&failing.url)]);
    let site = Site::notifying(webhooks.retry_delays([SHORT; 4]));
    let accepted = site.submit("/reports").await;
    let delivery = site.delivery(&accepted, "failed").await;
    assert_eq!(delivery["attempts"], 5);
    for _ in 0..5 {
        failing.next().await;
    }
    let accepted = site.submit("/reports").await;
    let is_attempted = |it: &serde_json::Value| it["attempts"] == 1;
    let delivery = site.delivery_when(&accepted, is_attempted).await;
    assert_eq!(delivery["state"], "pending");
    assert_eq!(delivery["lastFailure"], "suspended");
    assert!(failing.is_idle());
}

#[tokio::test]
async fn suspension_costs_no_last_attempt() {
    let mut failing = Receiver::start(|_| StatusCode::BAD_GATEWAY).await;
    // One attempt for each delivery.
    let site = Site::notifying(notifying(&Secret::generate(), [Target::new(&failing.url)]));
    for _ in 0..5 {
        let accepted = site.submit("/reports").await;
        site.delivery(&accepted, "failed").await;
        failing.next().await;
    }
    let accepted = site.submit("/reports").await;
    let is_attempted = |it: &serde_json::Value| it["attempts"] == 1;
    let delivery = site.delivery_when(&accepted, is_attempted).await;
    assert_eq!(delivery["lastFailure"], "suspended");
    assert_eq!(delivery["state"], "pending");
    assert!(failing.is_idle());
}
