//! Webhooks on their way from a job's end to its receiver.

use http::{Method, StatusCode};
use tower_accepted::{
    Dialect, Jobs, Links,
    webhook::{EventType, Secret, Target, VerifyKey},
};

use crate::{
    kit::{Receiver, SHORT, Site, notifying, webhooks},
    layered::{get, post, request},
    naming::host_of,
};

#[tokio::test]
async fn end_of_a_job_reaches_its_receiver() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let url = format!("{}/hook?token=s3cret", receiver.url);
    let site = Site::notifying(notifying(&secret, [Target::new(url)]));
    let accepted = site.submit("/reports").await;
    let received = receiver.next().await;
    assert_eq!(received.method, Method::POST);
    assert_eq!(received.path, "/hook?token=s3cret");
    assert_eq!(received.field("content-type"), "application/json");
    let event = received.verified(&secret);
    assert_eq!(event.type_name, "job.succeeded");
    assert_eq!(event.id, format!("{}_0", accepted.id()));
    assert_eq!(event.data["self"], accepted.location());
    assert_eq!(event.status(), Some("succeeded"));
    let document = site.send(get(accepted.location())).await.json();
    assert_eq!(serde_json::Value::from(event.data), document);
    let delivery = site.delivery(&accepted, "delivered").await;
    assert_eq!(delivery["attempts"], 1);
    assert_eq!(delivery["lastStatus"], 204);
    assert!(delivery.get("nextAttemptAt").is_none());
}

#[tokio::test]
async fn every_end_has_its_event() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let site = Site::notifying(notifying(&secret, [Target::new(&receiver.url)]));
    for (path, end, event) in [
        ("/reports", None, "job.succeeded"),
        ("/broken", None, "job.failed"),
        ("/never", Some("POST"), "job.canceled"),
        ("/never", Some("DELETE"), "job.canceled"),
    ] {
        let accepted = site.submit(path).await;
        match end {
            Some("POST") => {
                let cancel = format!("{}/cancel", accepted.location());
                assert_eq!(site.send(post(&cancel)).await.status, StatusCode::OK);
            }
            Some(method) => {
                let deleted = site.send(request(method, accepted.location())).await;
                assert_eq!(deleted.status, StatusCode::NO_CONTENT);
            }
            None => {}
        }
        let received = receiver.next().await.verified(&secret);
        assert_eq!(received.type_name, event, "{path} {end:?}");
        assert_eq!(received.job_id(), Some(&*accepted.id().to_string()));
    }
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn target_gets_the_events_it_wants() {
    let (mut one, mut two) = (Receiver::taking().await, Receiver::taking().await);
    let secret = Secret::generate();
    let site = Site::notifying(notifying(
        &secret,
        [
            Target::new(&one.url).events([EventType::JobFailed]),
            Target::new(&two.url).events([EventType::JobSucceeded, EventType::JobFailed]),
        ],
    ));
    let succeeded = site.submit("/reports").await;
    let received = two.next().await.verified(&secret);
    assert_eq!(received.id, format!("{}_1", succeeded.id()));
    let failed = site.submit("/broken").await;
    for (receiver, target) in [(&mut one, 0), (&mut two, 1)] {
        let received = receiver.next().await.verified(&secret);
        assert_eq!(received.type_name, "job.failed");
        assert_eq!(received.id, format!("{}_{target}", failed.id()));
    }
    assert!(one.is_idle() && two.is_idle());
    let callbacks = site.callbacks(&succeeded).await;
    assert_eq!(callbacks[0]["events"], serde_json::json!(["job.failed"]));
    assert!(callbacks[0].get("delivery").is_none(), "{callbacks:?}");
    assert_eq!(callbacks[1]["delivery"]["event"], "job.succeeded");
}

#[tokio::test]
async fn odata_callback_is_a_get_without_signature() {
    let mut receiver = Receiver::taking().await;
    let webhooks = webhooks(&Secret::generate()).prefer_callback(host_of(&receiver));
    let jobs = Jobs::builder().dialect(Dialect::Pending202);
    let site = Site::new(jobs.webhooks(webhooks).build());
    let prefer = format!(
        "respond-async, callback; url=\"{}/done?it=1\"",
        receiver.url
    );
    let accepted = site.submit_with("/reports", &[("prefer", &prefer)]).await;
    let applied = accepted.header("preference-applied");
    assert_eq!(applied, Some("respond-async, callback"));
    let received = receiver.next().await;
    assert_eq!(received.method, Method::GET);
    assert_eq!(received.path, "/done?it=1");
    assert!(received.body.is_empty());
    let fields = received.headers.keys().map(|name| name.as_str());
    let signed: Vec<_> = fields.filter(|name| name.starts_with("webhook-")).collect();
    assert!(signed.is_empty(), "{signed:?}");
    assert!(!received.headers.contains_key("content-type"));
}

#[tokio::test]
async fn both_secrets_sign_during_a_rotation() {
    let mut receiver = Receiver::taking().await;
    let (old, new) = (Secret::generate(), Secret::generate());
    let webhooks = notifying(&old, [Target::new(&receiver.url)]).secret(new.clone());
    let site = Site::notifying(webhooks);
    site.submit("/reports").await;
    let received = receiver.next().await;
    assert_eq!(received.field("webhook-signature").split(' ').count(), 2);
    for secret in [&old, &new] {
        assert_eq!(received.verified(secret).type_name, "job.succeeded");
    }
}

#[tokio::test]
async fn published_key_verifies_webhooks() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate_ed25519();
    let site = Site::notifying(notifying(&secret, [Target::new(&receiver.url)]));
    let keys = site.send(get("/jobs/callbacks-key")).await;
    assert_eq!(keys.status, StatusCode::OK);
    let keys = keys.json();
    let [key] = &keys["keys"].as_array().expect("a list")[..] else {
        panic!("not one key: {keys}");
    };
    let key: VerifyKey = key.as_str().expect("a text").parse().expect("a key");
    site.submit("/reports").await;
    let received = receiver.next().await;
    assert!(received.field("webhook-signature").starts_with("v1a,"));
    assert_eq!(received.event(&[key]).type_name, "job.succeeded");
}

#[tokio::test]
async fn attempts_differ_in_time_and_signature_alone() {
    let mut receiver = Receiver::start(|number| match number {
        0 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    })
    .await;
    let secret = Secret::generate();
    // The timestamp has whole seconds.
    let delay = std::time::Duration::from_millis(1_200);
    let webhooks = notifying(&secret, [Target::new(&receiver.url)]).retry_delays([delay]);
    let site = Site::notifying(webhooks);
    let accepted = site.submit("/reports").await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    for received in [&first, &second] {
        assert_eq!(received.verified(&secret).type_name, "job.succeeded");
    }
    assert_eq!(first.field("webhook-id"), second.field("webhook-id"));
    assert_eq!(first.body, second.body);
    for name in ["webhook-timestamp", "webhook-signature"] {
        assert_ne!(first.field(name), second.field(name), "{name}");
    }
    let delivery = site.delivery(&accepted, "delivered").await;
    assert_eq!(delivery["attempts"], 2);
    assert_eq!(delivery["lastStatus"], 200);
    assert!(delivery.get("lastFailure").is_none(), "{delivery}");
}

#[tokio::test]
async fn links_in_the_body_are_absolute() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let base = "https://api.example/v1";
    for (links, prefix) in [
        (Links::Base(base.to_owned()), base),
        (Links::Relative, ""),
        (Links::Path, ""),
    ] {
        let webhooks = notifying(&secret, [Target::new(&receiver.url)]).retry_delays([SHORT]);
        let jobs = Jobs::builder().links(links).webhooks(webhooks).build();
        let site = Site::new(jobs);
        let accepted = site.submit("/reports").await;
        let data = receiver.next().await.verified(&secret).data;
        let monitor = format!("{prefix}/jobs/{}", accepted.id());
        assert_eq!(data["self"], *monitor);
        assert_eq!(data["resourceLocation"], format!("{monitor}/result"));
        assert_eq!(data["callbacks"], format!("{monitor}/callbacks"));
    }
}
