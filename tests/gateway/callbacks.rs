//! Callbacks: the gateway notifies receivers that clients name.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::time::sleep;
use tower_accepted::webhook::{Secret, Verifier, VerifyKey, WebhookEvent};

use crate::{
    client::{Answer, get, request, send},
    program::{Program, command},
    upstream::{Received, Upstream},
};

pub(crate) const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// Runs the gateway until it ends, and returns its exit code and its output.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = command("accepted-gateway").args(arguments).output().await;
    let output = output.expect("a process");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

pub(crate) fn secret_file(secrets: &[&Secret]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    let lines: String = secrets.iter().map(|it| it.expose() + "\n").collect();
    std::fs::write(file.path(), lines).expect("written");
    file
}

/// The flags that allow callbacks to these hosts, signed by the secrets of this file.
pub(crate) fn flags<'a>(hosts: &'a str, file: &'a NamedTempFile) -> Vec<&'a str> {
    let path = file.path().to_str().expect("UTF-8");
    let always = "--always";
    vec![
        always,
        "--callback-hosts",
        hosts,
        "--callback-secret-file",
        path,
    ]
}

/// Submits a request with a field.
pub(crate) async fn submit(gateway: &Program, name: &str, value: &str) -> Answer {
    let request = request("POST", "/reports").header(name, value);
    send(gateway.address, request.body("".into()).expect("a request")).await
}

/// Returns the event of a webhook that this key has signed.
pub(crate) fn verified(received: &Received, key: impl Into<VerifyKey>) -> WebhookEvent {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        for value in received.all(name) {
            headers.append(HeaderName::from_static(name), value.parse().expect("text"));
        }
    }
    let event = Verifier::new([key]).verify(&headers, &received.body);
    event.expect("a valid signature")
}

/// Polls the callbacks of a job until its delivery has this state, and returns the delivery.
pub(crate) async fn delivery_in(gateway: &Program, job: &str, state: &str) -> Value {
    loop {
        let document = get(gateway.address, &format!("{job}/callbacks"))
            .await
            .json();
        let delivery = &document["callbacks"][0]["delivery"];
        if delivery["state"] == state {
            return delivery.clone();
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn client_names_its_receiver_in_two_ways() {
    let (mut upstream, mut receiver) = (Upstream::start().await, Upstream::start().await);
    let (new, old) = (Secret::generate_ed25519(), Secret::generate());
    let file = secret_file(&[&new, &old]);
    let host = receiver.address.to_string();
    let mut flags = flags(&host, &file);
    flags.extend([
        "--callback-insecure",
        "--public-base",
        "https://api.example",
    ]);
    let gateway = Program::gateway(upstream.address, &flags).await;
    let public = new.public_key().expect("a private key");

    let url = format!("http://{host}/hooks?token=s3cret");
    let preference = format!("respond-async, callback; url=\"{url}\"");
    for (name, value, applied) in [
        ("prefer", &preference, Some("respond-async, callback")),
        ("x-callback-url", &url, None),
    ] {
        let accepted = submit(&gateway, name, value).await;
        let has_applied = accepted.header("preference-applied").map(str::to_owned);
        assert_eq!(has_applied.as_deref(), applied);
        let link = accepted.job();
        let job = link.strip_prefix("https://api.example").expect("the base");
        upstream.next().await.ok("report").await;

        let received = receiver.next().await;
        assert_eq!(received.line, "POST /hooks?token=s3cret HTTP/1.1");
        assert_eq!(received.all("content-type"), ["application/json"]);
        let event = verified(&received, old.clone());
        assert_eq!(event, verified(&received, public));
        assert_eq!(event.type_name, "job.succeeded");
        assert_eq!(event.data["self"], link.as_str());
        let result = format!("{link}/result");
        assert_eq!(event.resource_location(), Some(result.as_str()));
        received.answer(NO_CONTENT).await;

        let delivery = delivery_in(&gateway, job, "delivered").await;
        assert_eq!(delivery["id"], event.id.as_str());
        assert_eq!(delivery["lastStatus"], 204);
    }
    let keys = get(gateway.address, "/jobs/callbacks-key").await.json();
    assert_eq!(keys["keys"], serde_json::json!([public.to_string()]));
}

#[tokio::test]
async fn other_receivers_are_refused() {
    let mut upstream = Upstream::start().await;
    let file = secret_file(&[&Secret::generate()]);
    let hosts = "hooks.example,*.receivers.example:8443,127.0.0.1,10.0.0.1";
    let mut flags = flags(hosts, &file);
    flags.extend(["--callback-internal", "127.0.0.1"]);
    let gateway = Program::gateway(upstream.address, &flags).await;
    for (url, is_allowed) in [
        ("https://hooks.example/jobs", true),
        ("https://one.receivers.example:8443/", true),
        ("https://127.0.0.1/", true),
        ("http://hooks.example/jobs", false),
        ("https://hooks.example:444/", false),
        ("https://other.example/", false),
        ("https://10.0.0.1/", false),
        ("hooks.example", false),
    ] {
        let answer = submit(&gateway, "x-callback-url", url).await;
        if is_allowed {
            answer.job();
            upstream.next().await.ok("").await;
        } else {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{url}");
            let problem = answer.json()["type"].clone();
            assert_eq!(problem, "urn:problem-type:tower-accepted:bad-callback");
            // As other preferences that are unknown or cannot be honored.
            let preference = format!("respond-async, callback; url=\"{url}\"");
            let accepted = submit(&gateway, "prefer", &preference).await;
            let applied = accepted.header("preference-applied");
            assert_eq!(applied, Some("respond-async"), "{url}");
            let job = accepted.job();
            let callbacks = get(gateway.address, &format!("{job}/callbacks")).await;
            assert_eq!(callbacks.status, StatusCode::NOT_FOUND);
            upstream.next().await.ok("").await;
        }
    }
}

#[tokio::test]
async fn without_flags_no_receiver_can_be_named() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let accepted = submit(&gateway, "x-callback-url", "https://hooks.example/").await;
    let job = accepted.job();
    let received = upstream.next().await;
    assert_eq!(received.all("x-callback-url"), ["https://hooks.example/"]);
    received.ok("").await;
    for path in [&format!("{job}/callbacks"), "/jobs/callbacks-key"] {
        let answer = get(gateway.address, path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn flags_of_callbacks_are_checked() {
    let broken = NamedTempFile::new().expect("a file");
    std::fs::write(broken.path(), "# the key\nhunter2\n").expect("written");
    let broken = broken.path().to_str().expect("UTF-8");
    let hosts = ["--callback-hosts", "hooks.example"];
    let secrets = ["--callback-secret-file", "missing/secrets"];
    let all = [hosts, secrets].concat();
    for (flags, code, reason) in [
        (&hosts[..], 2, "--callback-secret-file <PATH>"),
        (&secrets, 2, "--callback-hosts <HOST,…>"),
        (&["--callback-insecure"], 2, "--callback-hosts <HOST,…>"),
        (
            &["--callback-internal", "a"],
            2,
            "--callback-hosts <HOST,…>",
        ),
        (
            &[
                "--callback-hosts",
                "a.example,https://b.example",
                secrets[0],
                secrets[1],
            ],
            2,
            "invalid host rule \"https://b.example\"",
        ),
        (
            &all,
            1,
            "accepted-gateway: failed to read missing/secrets: ",
        ),
        (
            &[hosts[0], hosts[1], secrets[0], broken],
            1,
            ", line 2: unknown prefix: expected whsec_ or whsk_",
        ),
    ] {
        let (status, text) = run(flags).await;
        assert_eq!(status, Some(code), "{flags:?}: {text}");
        assert!(text.contains(reason), "{flags:?}: {text}");
        assert!(!text.contains("hunter2"), "{flags:?}: {text}");
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn failed_delivery_is_listed_and_sent_again() {
    let (mut upstream, mut receiver) = (Upstream::start().await, Upstream::start().await);
    let secret = Secret::generate();
    let file = secret_file(&[&secret]);
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("jobs.db");
    let store = store.to_str().expect("UTF-8");
    let host = receiver.address.to_string();
    let mut flags = flags(&host, &file);
    flags.extend(["--callback-insecure", "--store", store]);
    let gateway = Program::gateway(upstream.address, &flags).await;
    let url = format!("http://{host}/hooks?token=s3cret");
    let job = submit(&gateway, "x-callback-url", &url).await.job();
    upstream.next().await.ok("report").await;
    let first = receiver.next().await;
    let event = verified(&first, secret.clone());
    first
        .answer("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        .await;
    delivery_in(&gateway, &job, "failed").await;

    let deliveries = ["jobs", "deliveries", "--store", store];
    let (code, text) = run(&[&deliveries[..], &["--failed", "--json"]].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    let line: Value = serde_json::from_str(&text).expect("one line");
    assert_eq!(line["id"], event.id.as_str());
    assert_eq!(line["url"], format!("http://{host}/hooks"));
    assert_eq!(
        (&line["lastStatus"], &line["attempts"]),
        (&410.into(), &1.into())
    );
    let id = job.rsplit('/').next().expect("an id");
    let (_, text) = run(&["jobs", "show", "--store", store, id]).await;
    let row = format!("{}  job.succeeded  failed     ", event.id);
    assert!(text.contains(&row), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let (_, text) = run(&[&deliveries[..], &["--pending", "--json"]].concat()).await;
    assert_eq!(text, "");

    let redeliver = ["jobs", "redeliver", "--store", store, &event.id];
    let (code, text) = run(&redeliver).await;
    assert_eq!((code, text), (Some(0), format!("Queued {}.\n", event.id)));
    let again = receiver.next().await;
    assert_eq!(verified(&again, secret), event);
    again.answer(NO_CONTENT).await;
    delivery_in(&gateway, &job, "delivered").await;

    let (code, text) = run(&redeliver).await;
    assert_eq!(code, Some(1), "{text}");
    let error = "accepted-gateway: no such delivery, or its receiver has acknowledged it\n";
    assert_eq!(text, error);
}
