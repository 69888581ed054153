//! The resource that shows the deliveries of a job.

use http::StatusCode;
use serde_json::json;
use tower_accepted::{
    Jobs, Owner,
    webhook::{Secret, Target},
};

use crate::{
    kit::{Receiver, Site, notifying},
    layered::{get, request, with},
};

#[tokio::test]
async fn callbacks_show_no_secret() {
    let mut receiver = Receiver::taking().await;
    let url = format!("{}/hook?token=s3cret#part", receiver.url);
    let secret = Secret::generate();
    let site = Site::notifying(notifying(&secret, [Target::new(url)]));
    let accepted = site.submit("/gated").await;
    let shown = format!("{}/hook", receiver.url);
    let events = json!(["job.succeeded", "job.failed", "job.canceled"]);
    let callbacks = site.callbacks(&accepted).await;
    assert_eq!(callbacks, [json!({"url": shown, "events": events})]);
    site.gate.notify_one();
    receiver.next().await;
    let delivery = site.delivery(&accepted, "delivered").await;
    let members: Vec<_> = delivery.as_object().expect("an object").keys().collect();
    let expected = [
        "attempts",
        "event",
        "id",
        "lastAttemptAt",
        "lastStatus",
        "state",
    ];
    assert_eq!(members, expected);
    let path = format!("{}/callbacks", accepted.location());
    let answer = site.send(get(&path)).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!answer.text().contains("s3cret"), "{}", answer.text());
}

#[tokio::test]
async fn url_with_a_password_is_no_target() {
    let mut receiver = Receiver::taking().await;
    let url = receiver.url.replace("http://", "http://user:s3cret@");
    let webhooks = notifying(&Secret::generate(), [Target::new(url)]);
    let site = Site::notifying(webhooks);
    let accepted = site.submit("/reports").await;
    assert!(accepted.json().get("callbacks").is_none());
    site.jobs.drain(crate::kit::LONG).await;
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn callbacks_have_the_methods_of_a_document() {
    let receiver = Receiver::taking().await;
    let site = Site::notifying(notifying(&Secret::generate(), [Target::new(&receiver.url)]));
    let accepted = site.submit("/never").await;
    let path = format!("{}/callbacks", accepted.location());
    let read = site.send(get(&path)).await;
    let head = site.send(request("HEAD", &path)).await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(head.body.is_empty());
    let length = read.body.len().to_string();
    for answer in [&read, &head] {
        assert_eq!(answer.header("content-length"), Some(&*length));
    }
    for path in [&path, "/jobs/callbacks-key"] {
        let options = site.send(request("OPTIONS", path)).await;
        assert_eq!(options.status, StatusCode::NO_CONTENT);
        assert_eq!(options.header("allow"), Some("GET, HEAD, OPTIONS"));
        let refused = site.send(request("POST", path)).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    // The only secret is a shared one.
    let keys = site.send(get("/jobs/callbacks-key")).await;
    assert_eq!(keys.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn callbacks_are_for_the_owner_alone() {
    let receiver = Receiver::taking().await;
    let webhooks = notifying(&Secret::generate(), [Target::new(&receiver.url)]);
    let jobs = Jobs::builder().webhooks(webhooks).owner(|head| {
        let user = head.headers.get("x-user")?;
        Some(Owner::new(user.as_bytes()))
    });
    let site = Site::new(jobs.build());
    let accepted = site.submit_with("/never", &[("x-user", "one")]).await;
    let path = format!("{}/callbacks", accepted.location());
    for (user, status) in [
        (Some("one"), StatusCode::OK),
        (Some("two"), StatusCode::NOT_FOUND),
        (None, StatusCode::NOT_FOUND),
    ] {
        let fields: Vec<_> = user.map(|user| ("x-user", user)).into_iter().collect();
        for method in ["GET", "HEAD"] {
            let answer = site.send(with(request(method, &path), &fields)).await;
            assert_eq!(answer.status, status, "{method} {user:?}");
        }
    }
}

#[tokio::test]
async fn job_without_targets_has_no_callbacks() {
    let receiver = Receiver::taking().await;
    let target = Target::new(&receiver.url);
    let webhooks = notifying(&Secret::generate(), []).targets(move |head| {
        let is_notified = head.headers.contains_key("x-notify");
        is_notified.then(|| target.clone()).into_iter().collect()
    });
    let site = Site::notifying(webhooks);
    let notified = site.submit_with("/reports", &[("x-notify", "1")]).await;
    let link = format!("{}/callbacks", notified.location());
    let document = site.send(get(notified.location())).await.json();
    assert_eq!(document["callbacks"], *link);
    let silent = site.submit("/reports").await;
    let document = site.send(get(silent.location())).await.json();
    assert!(document.get("callbacks").is_none(), "{document}");
    let path = format!("{}/callbacks", silent.location());
    assert_eq!(site.send(get(&path)).await.status, StatusCode::NOT_FOUND);
}
