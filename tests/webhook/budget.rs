//! The memory that deliveries take.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use tower_accepted::{
    Jobs,
    store::{Budget, DeliveryFilter, MemoryStore, Purpose},
    webhook::{Secret, Target},
};

use crate::{
    kit::{LONG, RawReceiver, Receiver, Site, notifying, until},
    layered::{get, request},
};

fn site(budget: &Budget, url: &str) -> Site {
    let webhooks = notifying(&Secret::generate(), [Target::new(url)]);
    let store = MemoryStore::new(LONG, budget.clone());
    let jobs = Jobs::builder().store(store);
    Site::new(jobs.webhooks(webhooks.timeout(LONG)).build())
}

#[tokio::test]
async fn pending_delivery_keeps_no_result() {
    let silent = RawReceiver::hanging().await;
    let budget = Budget::new(64 << 20);
    let site = site(&budget, &silent.url());
    let accepted = site.submit("/megabyte").await;
    let document = site.ended(&accepted).await;
    assert_eq!(document["response"]["contentLength"], 1 << 20);
    let used = budget.used();
    assert!(used > 1 << 20, "{used}");
    let deleted = site.send(request("DELETE", accepted.location())).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    // The call ends soon.
    until("the result to be freed", || budget.used() < 2_000).await;
    let used = budget.used();
    assert!(
        used > 512 + silent.url().len() + 400,
        "{used}: a delivery has a body"
    );
    let pending = DeliveryFilter::new().pending();
    let page = site.jobs.deliveries(&pending).await.expect("no error");
    assert_eq!(page.deliveries.len(), 1);
}

#[tokio::test]
async fn delivery_gives_back_its_body() {
    let mut receiver = Receiver::taking().await;
    let budget = Budget::new(64 << 20);
    let url = format!("{}/", receiver.url);
    let site = site(&budget, &url);
    let accepted = site.submit("/reports").await;
    receiver.next().await;
    site.delivery(&accepted, "delivered").await;
    site.send(request("DELETE", accepted.location())).await;
    let used = || budget.used_for(Purpose::Response);
    until("the body to be freed", || used() <= 512 + url.len()).await;
    assert_eq!(used(), 512 + url.len());
    drop(site);
    until("all to be freed", || budget.used() == 0).await;
}

#[tokio::test]
async fn oldest_deliveries_are_dropped_first() {
    let silent = RawReceiver::hanging().await;
    let budget = Budget::new(64 << 10);
    let site = site(&budget, &silent.url());
    let mut submitted = Vec::new();
    for _ in 0..20 {
        let accepted = site.submit("/reports").await;
        site.ended(&accepted).await;
        site.send(request("DELETE", accepted.location())).await;
        submitted.push(format!("{}_0", accepted.id()));
        // The age of a delivery has milliseconds.
        let ended = SystemTime::now();
        let is_later = || {
            ended
                .elapsed()
                .is_ok_and(|age| age > Duration::from_millis(1))
        };
        until("the next millisecond", is_later).await;
    }
    let page = site.jobs.deliveries(&DeliveryFilter::new()).await;
    let page = page.expect("no error").deliveries;
    let kept: Vec<_> = page.iter().rev().map(|it| it.id.to_string()).collect();
    assert!((4..20).contains(&kept.len()), "{kept:?}");
    assert_eq!(kept, submitted[20 - kept.len()..]);
    assert!(budget.used_for(Purpose::Response) <= 8 << 10);
}

#[tokio::test]
async fn full_budget_takes_no_result_from_a_job() {
    let silent = RawReceiver::hanging().await;
    let budget = Budget::new(64 << 10);
    let site = site(&budget, &silent.url());
    let mut last = None;
    for _ in 0..50 {
        let accepted = site.submit("/reports").await;
        site.ended(&accepted).await;
        last = Some(accepted);
    }
    let last = last.expect("a job");
    // Older jobs were evicted, and this one was not.
    let path = format!("{}/result", last.location());
    let answer = site.send(get(&path)).await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::OK, "the report")
    );
    assert!(budget.used() <= 64 << 10);
}
