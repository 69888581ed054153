//! Attempts after the first one.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use tower_accepted::{
    store::DeliveryFilter,
    webhook::{Secret, Target},
};

use crate::{
    kit::{LONG, Receiver, SHORT, Site, notifying},
    layered::Answer,
};

async fn site(receiver: &Receiver, delays: &[Duration]) -> Site {
    let target = Target::new(format!("{}/hook", receiver.url));
    let webhooks = notifying(&Secret::generate(), [target]);
    Site::notifying(webhooks.retry_delays(delays.to_vec()))
}

fn seconds_until(text: &serde_json::Value) -> f64 {
    let at: jiff::Timestamp = text.as_str().expect("a time").parse().expect("RFC 3339");
    let now = jiff::Timestamp::try_from(SystemTime::now()).expect("in range");
    at.duration_since(now).as_secs_f64()
}

#[tokio::test]
async fn failed_attempt_is_repeated() {
    let mut receiver = Receiver::start(|number| match number {
        0 | 1 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    })
    .await;
    let site = site(&receiver, &[SHORT, SHORT]).await;
    let accepted = site.submit("/reports").await;
    let ids = [
        receiver.next().await,
        receiver.next().await,
        receiver.next().await,
    ];
    let ids: Vec<_> = ids.iter().map(|it| it.field("webhook-id")).collect();
    assert_eq!(ids, [&*delivery_id(&accepted); 3]);
    let delivery = site.delivery(&accepted, "delivered").await;
    assert_eq!(delivery["attempts"], 3);
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn gone_receiver_gets_no_second_attempt() {
    let mut receiver = Receiver::start(|_| StatusCode::GONE).await;
    let site = site(&receiver, &[SHORT, SHORT]).await;
    let accepted = site.submit("/reports").await;
    let delivery = site.delivery(&accepted, "failed").await;
    assert_eq!(delivery["attempts"], 1);
    assert_eq!(delivery["lastStatus"], 410);
    assert_eq!(delivery["lastFailure"], "status");
    assert!(delivery.get("nextAttemptAt").is_none(), "{delivery}");
    receiver.next().await;
    site.jobs.drain(LONG).await;
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn retry_after_is_heeded() {
    let date = SystemTime::now() + Duration::from_secs(500);
    for (status, retry_after, seconds) in [
        (
            StatusCode::TOO_MANY_REQUESTS,
            "300".to_owned(),
            280.0..=331.0,
        ),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            httpdate::fmt_http_date(date),
            480.0..=551.0,
        ),
        // Not with this status, and not a shorter delay than the schedule has.
        (StatusCode::BAD_GATEWAY, "300".to_owned(), 80.0..=110.0),
        (StatusCode::TOO_MANY_REQUESTS, "1".to_owned(), 80.0..=110.0),
    ] {
        let fields: HeaderMap = [("retry-after".parse().expect("a name"), &*retry_after)]
            .map(|(name, value)| (name, value.parse().expect("a value")))
            .into_iter()
            .collect();
        let mut receiver = Receiver::start(move |_| (status, fields.clone())).await;
        let site = site(&receiver, &[Duration::from_secs(100)]).await;
        let accepted = site.submit("/reports").await;
        receiver.next().await;
        let is_attempted = |it: &serde_json::Value| it["attempts"] == 1;
        let delivery = site.delivery_when(&accepted, is_attempted).await;
        assert_eq!(delivery["state"], "pending");
        assert_eq!(delivery["lastStatus"], status.as_u16());
        let left = seconds_until(&delivery["nextAttemptAt"]);
        assert!(seconds.contains(&left), "{status} {retry_after}: {left}");
    }
}

#[tokio::test]
async fn redirect_is_a_failure() {
    let mut other = Receiver::taking().await;
    let location = other.url.clone();
    let mut receiver = Receiver::start(move |number| {
        let status = [301, 302, 303, 307, 308][number];
        let status = StatusCode::from_u16(status).expect("a status");
        (status, [("location", location.clone())])
    })
    .await;
    let site = site(&receiver, &[SHORT; 4]).await;
    let accepted = site.submit("/reports").await;
    let delivery = site.delivery(&accepted, "failed").await;
    assert_eq!(delivery["attempts"], 5);
    assert_eq!(delivery["lastStatus"], 308);
    assert_eq!(delivery["lastFailure"], "status");
    for _ in 0..5 {
        assert_eq!(receiver.next().await.path, "/hook");
    }
    assert!(other.is_idle());
}

async fn listed(site: &Site, filter: DeliveryFilter) -> Vec<String> {
    let page = site.jobs.deliveries(&filter).await.expect("no error");
    let deliveries = page.deliveries.iter();
    deliveries.map(|it| it.id.to_string()).collect()
}

fn delivery_id(accepted: &Answer) -> String {
    format!("{}_0", accepted.id())
}

#[tokio::test]
async fn failed_delivery_can_be_sent_again() {
    let mut receiver = Receiver::start(|number| match number {
        0..=2 => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    })
    .await;
    let site = site(&receiver, &[SHORT]).await;
    let accepted = site.submit("/reports").await;
    let delivery = site.delivery(&accepted, "failed").await;
    assert_eq!(delivery["attempts"], 2);
    let id = delivery_id(&accepted);
    assert_eq!(delivery["id"], *id);
    assert_eq!(listed(&site, DeliveryFilter::new().failed()).await, [&*id]);
    assert!(
        listed(&site, DeliveryFilter::new().pending())
            .await
            .is_empty()
    );

    // With all of its attempts: the first one fails.
    let redeliver = site.jobs.redeliver(id.parse().expect("an id"));
    assert!(redeliver.await.expect("no error"));
    let delivery = site.delivery(&accepted, "delivered").await;
    assert_eq!(delivery["attempts"], 2);
    let first = receiver.next().await;
    for _ in 0..3 {
        let again = receiver.next().await;
        assert_eq!(again.field("webhook-id"), id);
        assert_eq!(again.body, first.body);
    }
    assert_eq!(
        listed(&site, DeliveryFilter::new().delivered()).await,
        [&*id]
    );
    assert!(
        listed(&site, DeliveryFilter::new().failed())
            .await
            .is_empty()
    );
    // Its receiver has acknowledged it.
    let redeliver = site.jobs.redeliver(id.parse().expect("an id"));
    assert!(!redeliver.await.expect("no error"));
}

#[tokio::test]
async fn deliveries_are_listed_in_pages() {
    let mut receiver = Receiver::taking().await;
    let site = site(&receiver, &[]).await;
    let mut newest = Vec::new();
    for _ in 0..5 {
        newest.insert(0, delivery_id(&site.submit("/reports").await));
        receiver.next().await;
    }
    let filter = DeliveryFilter::new().limit(2);
    let (mut listed, mut pages, mut next) = (Vec::new(), 0, None);
    loop {
        let filter = next.map_or(filter.clone(), |next| filter.clone().after(next));
        let page = site.jobs.deliveries(&filter).await.expect("no error");
        pages += 1;
        listed.extend(page.deliveries.iter().map(|it| it.id.to_string()));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    // Those of one millisecond are in the order of their ids.
    listed.sort();
    newest.sort();
    assert_eq!(listed, newest);
}
