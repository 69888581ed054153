//! Receivers that clients name.

use std::time::Duration;

use http::StatusCode;
use tower_accepted::{
    Jobs, When,
    webhook::{HostRule, Secret, Webhooks},
};

use crate::{
    kit::{Receiver, Site, webhooks},
    layered::{get, post, with},
};

/// Returns a rule for a receiver on this machine.
pub(crate) fn host_of(receiver: &Receiver) -> [HostRule; 1] {
    let host = receiver.url.strip_prefix("http://").expect("a URL");
    [host.parse().expect("a rule")]
}

fn site(webhooks: Webhooks) -> Site {
    Site::notifying(webhooks)
}

fn preference(name: &str, receiver: &Receiver) -> String {
    format!("{name}; url=\"{}/preferred\"", receiver.url)
}

#[tokio::test]
async fn preferred_callback_is_confirmed_by_its_name() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let site = site(webhooks(&secret).prefer_callback(host_of(&receiver)));
    for (name, more, applied) in [
        ("callback", "respond-async, ", "respond-async, callback"),
        ("odata.callback", "", "odata.callback"),
        (
            "Callback",
            "wait=0, respond-async, ",
            "respond-async, wait=0, callback",
        ),
    ] {
        let prefer = format!("{more}{}", preference(name, &receiver));
        let accepted = site.submit_with("/gated", &[("prefer", &prefer)]).await;
        assert_eq!(accepted.header("preference-applied"), Some(applied));
        site.gate.notify_one();
        let received = receiver.next().await;
        assert_eq!(received.path, "/preferred");
        assert_eq!(received.verified(&secret).type_name, "job.succeeded");
    }
}

#[tokio::test]
async fn inline_response_has_no_webhook() {
    let mut receiver = Receiver::taking().await;
    let webhooks = webhooks(&Secret::generate()).prefer_callback(host_of(&receiver));
    let jobs = Jobs::builder().webhooks(webhooks).build();
    let site = Site::with_policy(jobs, When::After(Duration::from_secs(60)));
    let prefer = preference("wait=9, callback", &receiver);
    let request = || with(post("/reports"), &[("prefer", &prefer)]);
    let answer = site.send(request()).await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::OK, "the report")
    );
    assert_eq!(answer.header("preference-applied"), Some("wait=9"));
    // The service takes longer.
    let prefer = preference("wait=0, callback", &receiver);
    let accepted = site.submit_with("/gated", &[("prefer", &prefer)]).await;
    assert_eq!(
        accepted.header("preference-applied"),
        Some("wait=0, callback")
    );
    site.gate.notify_one();
    let received = receiver.next().await;
    assert_eq!(received.field("webhook-id"), format!("{}_0", accepted.id()));
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn inline_response_of_a_keyed_job_notifies() {
    let mut receiver = Receiver::taking().await;
    let webhooks = webhooks(&Secret::generate()).prefer_callback(host_of(&receiver));
    let jobs = Jobs::builder().webhooks(webhooks).build();
    let site = Site::with_policy(jobs, When::After(Duration::from_secs(60)));
    let prefer = preference("callback", &receiver);
    let fields = [("prefer", &*prefer), ("idempotency-key", "\"one\"")];
    let answer = site.send(with(post("/reports"), &fields)).await;
    assert_eq!(answer.status, StatusCode::OK);
    // Only a 202 confirms it.
    assert_eq!(answer.header("preference-applied"), None);
    assert_eq!(receiver.next().await.path, "/preferred");
    site.send(with(post("/reports"), &fields)).await;
    site.jobs.drain(Duration::from_secs(60)).await;
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn host_without_a_rule_is_ignored() {
    let (receiver, mut other) = (Receiver::taking().await, Receiver::taking().await);
    let site = site(webhooks(&Secret::generate()).prefer_callback(host_of(&receiver)));
    for url in [
        &*other.url,
        "http://user@127.0.0.1/",
        "no URL",
        "ftp://127.0.0.1/",
    ] {
        let prefer = format!("respond-async, callback; url=\"{url}\"");
        let accepted = site.submit_with("/reports", &[("prefer", &prefer)]).await;
        assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
        assert!(accepted.json().get("callbacks").is_none(), "{url}");
        let callbacks = format!("{}/callbacks", accepted.location());
        assert_eq!(
            site.send(get(&callbacks)).await.status,
            StatusCode::NOT_FOUND
        );
    }
    site.jobs.drain(Duration::from_secs(60)).await;
    assert!(other.is_idle());
}

#[tokio::test]
async fn repeat_joins_and_confirms_no_callback() {
    let mut receiver = Receiver::taking().await;
    let site = site(webhooks(&Secret::generate()).prefer_callback(host_of(&receiver)));
    let prefer = preference("respond-async, callback", &receiver);
    let fields = [("prefer", &*prefer), ("idempotency-key", "\"one\"")];
    let first = site.submit_with("/gated", &fields).await;
    assert_eq!(
        first.header("preference-applied"),
        Some("respond-async, callback")
    );
    let repeat = site.submit_with("/gated", &fields).await;
    assert_eq!(repeat.location(), first.location());
    assert_eq!(repeat.header("preference-applied"), Some("respond-async"));
    site.gate.notify_one();
    receiver.next().await;
    site.jobs.drain(Duration::from_secs(60)).await;
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn x_callback_url_names_a_receiver_once() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let site = site(webhooks(&secret).x_callback_url(host_of(&receiver)));
    let url = format!("{}/named", receiver.url);
    let accepted = site
        .submit_with("/reports", &[("x-callback-url", &url)])
        .await;
    assert_eq!(accepted.header("preference-applied"), None);
    let received = receiver.next().await;
    assert_eq!(received.path, "/named");
    assert_eq!(received.verified(&secret).status(), Some("succeeded"));
    for urls in [
        &["http://127.0.0.1:1/"][..],
        &["https://hooks.example/"],
        &["/named"],
        &[""],
        &[&url, &url],
    ] {
        let fields: Vec<_> = urls.iter().map(|&url| ("x-callback-url", url)).collect();
        let refused = site.send(with(post("/reports"), &fields)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{urls:?}");
        let problem = refused.json();
        assert_eq!(
            problem["type"], "urn:problem-type:tower-accepted:bad-callback",
            "{problem}"
        );
    }
    site.jobs.drain(Duration::from_secs(60)).await;
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn callbacks_are_off_by_default() {
    let mut receiver = Receiver::taking().await;
    let site = site(webhooks(&Secret::generate()));
    let prefer = preference("callback", &receiver);
    let fields = [("x-callback-url", &*receiver.url), ("prefer", &prefer)];
    let accepted = site.submit_with("/reports", &fields).await;
    assert_eq!(accepted.header("preference-applied"), None);
    site.jobs.drain(Duration::from_secs(60)).await;
    assert!(receiver.is_idle());
}
