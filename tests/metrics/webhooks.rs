//! Metrics of webhooks.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::StatusCode;
use tokio::time::sleep;
use tower_accepted::{
    Jobs,
    webhook::{Secret, Target},
};

use crate::{
    Scrape,
    kit::{LONG, RawReceiver, Receiver, Site, notifying},
    recorder,
};

#[tokio::test]
async fn webhooks_are_counted_and_timed() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let is_live = Arc::new(AtomicBool::new(false));
    let answers = is_live.clone();
    let receiver = Receiver::start(move |_| {
        if answers.load(Ordering::SeqCst) {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        }
    })
    .await;
    let gone = RawReceiver::hanging().await.url();
    let targets = [Target::new(&receiver.url), Target::new(gone)];
    let webhooks = notifying(&Secret::generate(), targets).retry_delays([LONG]);
    let site = Site::notifying(webhooks);
    let accepted = site.submit("/reports").await;
    site.jobs.drain(LONG).await;
    let failures = |reason| scrape.value(&format!("{FAILURES}{{reason=\"{reason}\"}}"));
    assert_eq!(failures("status"), 1.0);
    assert_eq!(failures("connect"), 1.0);
    assert!(!scrape.has("tower_accepted_webhooks_delivered_total"));
    drop(site);

    is_live.store(true, Ordering::SeqCst);
    let webhooks = notifying(&Secret::generate(), [Target::new(&receiver.url)]);
    let site = Site::notifying(webhooks);
    let delivered = site.submit("/reports").await;
    assert_ne!(delivered.id(), accepted.id());
    site.delivery(&delivered, "delivered").await;
    assert_eq!(scrape.value("tower_accepted_webhooks_delivered_total"), 1.0);
    assert_eq!(
        scrape.value("tower_accepted_webhook_delivery_seconds_count"),
        1.0
    );
    assert!(scrape.value("tower_accepted_webhook_delivery_seconds_sum") > 0.0);
    assert_eq!(failures("status"), 1.0);
}

const FAILURES: &str = "tower_accepted_webhook_failures_total";

#[tokio::test]
async fn pending_webhooks_are_counted_now_and_then() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let receiver = Receiver::start(|number| match number {
        0 => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    })
    .await;
    let webhooks = notifying(&Secret::generate(), [Target::new(&receiver.url)]);
    let site = Site::notifying(webhooks.retry_delays([LONG]));
    let accepted = site.submit("/reports").await;
    site.delivery_when(&accepted, |it| it["attempts"] == 1)
        .await;
    let pending = "tower_accepted_webhooks_pending";
    let oldest = "tower_accepted_webhooks_oldest_pending_seconds";
    // From here on, the clock of timers advances while all tasks wait.
    tokio::time::pause();
    while scrape.value(pending) != 1.0 {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(scrape.value(oldest) > 0.0);
    tokio::time::resume();
    let id = format!("{}_0", accepted.id()).parse().expect("an id");
    assert!(site.jobs.redeliver(id).await.expect("no error"));
    site.delivery(&accepted, "delivered").await;
    tokio::time::pause();
    while scrape.value(pending) != 0.0 {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(scrape.value(oldest), 0.0);
}

#[tokio::test]
async fn dropped_webhooks_are_failures() {
    let recorder = recorder();
    let (scrape, _guard) = Scrape::start(&recorder);
    let silent = RawReceiver::hanging().await;
    let webhooks = notifying(&Secret::generate(), [Target::new(silent.url())]);
    // An eighth is for deliveries: there is room for one or two.
    let jobs = Jobs::builder()
        .webhooks(webhooks.timeout(LONG))
        .max_bytes(16 << 10);
    let site = Site::new(jobs.build());
    for _ in 0..5 {
        let accepted = site.submit("/reports").await;
        site.ended(&accepted).await;
    }
    let dropped = scrape.value(&format!("{FAILURES}{{reason=\"dropped\"}}"));
    assert!((3.0..=4.0).contains(&dropped), "{dropped}");
}
