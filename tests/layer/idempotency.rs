//! Joins repeated requests by their `Idempotency-Key`.

use std::{future::pending, time::Duration};

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, Idempotency, Jobs, Owner, When};

use crate::support::*;

fn keyed(path: &str, key: &str) -> http::Request<Body> {
    with(post(path), &[("idempotency-key", key)])
}

fn problem(answer: &Answer) -> String {
    let document = answer.json();
    let name = document["type"].as_str().unwrap().rsplit(':').next();
    name.unwrap().to_owned()
}

/// Creates a service that takes ten seconds, and counts its calls.
fn slow(
    calls: &Counter,
) -> impl tower::Service<
    http::Request<tower_accepted::RequestBody<Body>>,
    Response = Response<Body>,
    Error = Failed,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let calls = calls.clone();
    inner(move |_| {
        calls.up();
        async {
            sleep(Duration::from_secs(10)).await;
            ok("the only result")
        }
    })
}

#[tokio::test(start_paused = true)]
async fn repeated_request_joins_the_first_job() {
    let calls = Counter::default();
    let service = AcceptedLayer::new().layer(slow(&calls));
    let first = send(&service, keyed("/", "order-7")).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    // The key is quoted or bare, and the job is queued, running or ended.
    for key in ["order-7", "\"order-7\"", "order-7"] {
        let again = send(&service, keyed("/", key)).await;
        assert_eq!(again.location(), first.location());
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        sleep(Duration::from_secs(6)).await;
    }
    let ended = send(&service, keyed("/", "order-7")).await;
    assert_eq!(ended.status, StatusCode::ACCEPTED);
    assert_eq!(ended.json()["status"], "succeeded");
    assert_eq!(ended.header("retry-after"), None, "the job has ended");
    assert_eq!(calls.count(), 1);
    send(&service, keyed("/", "order-8")).await;
    send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundred_concurrent_requests_make_one_call() {
    let calls = Counter::default();
    let service = AcceptedLayer::new().layer(inner({
        let calls = calls.clone();
        move |_| {
            calls.up();
            async { ok("") }
        }
    }));
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, keyed("/", "key")).await })
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for request in requests {
        ids.insert(request.await.unwrap().id());
    }
    let waiting = with(
        get(&format!("/jobs/{}", ids.iter().next().unwrap())),
        &[("prefer", "wait=30")],
    );
    assert_eq!(send(&service, waiting).await.json()["status"], "succeeded");
    assert_eq!((ids.len(), calls.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn key_of_another_request_is_refused() {
    let calls = Counter::default();
    let service = AcceptedLayer::new().layer(slow(&calls));
    let body = |text: &'static str| keyed("/a?b", "key").map(|_| Body::from(text));
    send(&service, body("first")).await.location();
    let mut put = body("first");
    *put.method_mut() = http::Method::PUT;
    for other in [
        put,
        body("second"),
        keyed("/a?c", "key").map(|_| Body::from("first")),
        with(body("first"), &[("content-type", "text/plain")]),
    ] {
        let answer = send(&service, other).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem(&answer), "key-reused");
    }
    // Credentials are not part of the fingerprint.
    let again = with(body("first"), &[("authorization", "Bearer new")]);
    assert_eq!(send(&service, again).await.status, StatusCode::ACCEPTED);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn malformed_or_missing_key_is_refused() {
    let calls = Counter::default();
    let layer = AcceptedLayer::new().idempotency(Idempotency::new().required(true));
    let service = layer.layer(slow(&calls));
    for key in ["", "\"", "\"a\" b", &"x".repeat(256)] {
        let answer = send(&service, keyed("/", key)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{key}");
        assert_eq!(problem(&answer), "malformed-key");
    }
    let answer = send(&service, post("/")).await;
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (StatusCode::BAD_REQUEST, "key-required")
    );
    assert_eq!(
        send(&service, get("/")).await.status,
        StatusCode::OK,
        "a GET needs no key"
    );
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn strict_mode_refuses_to_join_an_unfinished_job() {
    let calls = Counter::default();
    let layer = AcceptedLayer::new().idempotency(Idempotency::new().strict(true));
    let service = layer.layer(slow(&calls));
    let first = send(&service, keyed("/", "key")).await;
    let conflict = send(&service, keyed("/", "key")).await;
    assert_eq!(
        (conflict.status, &*problem(&conflict)),
        (StatusCode::CONFLICT, "key-in-use")
    );
    assert!(conflict.header("retry-after").is_some());
    ended(&service, &first).await;
    let again = send(&service, keyed("/", "key")).await;
    assert_eq!(again.location(), first.location());
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn inline_response_with_a_key_is_replayed() {
    let calls = Counter::default();
    let layer = AcceptedLayer::new().when(When::After(Duration::from_secs(30)));
    let service = layer.layer(slow(&calls));
    let both = [keyed("/", "key"), keyed("/", "key")].map(|request| {
        let service = service.clone();
        tokio::spawn(async move { send(&service, request).await })
    });
    for answer in both {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "the only result")
        );
        assert_eq!(answer.header("asyncresult"), None);
    }
    let later = send(&service, keyed("/", "key")).await;
    assert_eq!(
        (later.status, later.text()),
        (StatusCode::OK, "the only result")
    );
    assert_eq!(later.header("idempotent-replayed"), Some("true"));
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn slow_call_with_a_key_is_accepted_after_the_delay() {
    let calls = Counter::default();
    let layer = AcceptedLayer::new().when(When::After(Duration::from_secs(2)));
    let service = layer.layer(slow(&calls));
    let accepted = send(&service, keyed("/", "key")).await;
    assert_eq!(accepted.json()["status"], "running");
    let joined = send(&service, keyed("/", "key")).await;
    assert_eq!(joined.location(), accepted.location());
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn ready_response_with_a_key_is_inline() {
    let layer = AcceptedLayer::new().when(When::After(Duration::ZERO));
    let service = layer.layer(inner(async |request| {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(1)).await;
        }
        let response = Response::builder().status(StatusCode::NOT_FOUND);
        Ok(response.body(Body::from("no such thing")).unwrap())
    }));
    for _ in 0..2 {
        let answer = send(&service, keyed("/", "key")).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::NOT_FOUND, "no such thing")
        );
    }
    send(&service, keyed("/slow", "slow key")).await.location();
}

#[tokio::test(start_paused = true)]
async fn call_with_a_key_outlives_its_connection() {
    let calls = Counter::default();
    let layer = AcceptedLayer::new().when(When::After(Duration::from_secs(30)));
    let service = layer.layer(slow(&calls));
    let client = tokio::spawn({
        let service = service.clone();
        async move { send(&service, keyed("/", "key")).await }
    });
    sleep(Duration::from_secs(5)).await;
    client.abort();
    sleep(Duration::from_secs(1)).await;
    let answer = send(&service, keyed("/", "key")).await;
    assert_eq!((answer.text(), calls.count()), ("the only result", 1));
}

#[tokio::test(start_paused = true)]
async fn key_expires_after_its_time() {
    let calls = Counter::default();
    let jobs = Jobs::builder().build();
    let minute = Idempotency::new().keep_for(Duration::from_secs(60));
    let service = jobs.layer().idempotency(minute).layer(slow(&calls));
    let first = send(&service, keyed("/", "key")).await;
    sleep(Duration::from_secs(69)).await;
    assert_eq!(send(&service, keyed("/", "key")).await.id(), first.id());
    // The key has expired. In the first round, it may still be in memory.
    for wait in [Duration::from_millis(1_500), Duration::from_secs(100)] {
        sleep(wait).await;
        let next = send(&service, keyed("/", "key")).await;
        assert_ne!(next.id(), first.id());
        send(&service, request("DELETE", next.location())).await;
    }
    // A deleted job frees its key, even if it was unfinished.
    assert_eq!(
        send(&service, keyed("/", "key"))
            .await
            .header("idempotent-replayed"),
        None
    );
    sleep(Duration::from_secs(2 * 3600)).await;
    assert!(format!("{jobs:?}").contains("used: 0"), "{jobs:?}");
}

#[tokio::test(start_paused = true)]
async fn full_registry_refuses_only_new_requests() {
    let calls = Counter::default();
    let jobs = Jobs::builder().max_unfinished(1).build();
    for when in [When::Always, When::After(Duration::ZERO)] {
        let service = jobs.layer().when(when).layer(slow(&calls));
        let first = send(&service, keyed("/", "key")).await;
        let joined = send(&service, keyed("/", "key")).await;
        assert_eq!(joined.location(), first.location());
        let refused = send(&service, keyed("/", "another")).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{when:?}");
        assert!(calls.count() <= 1);
    }
    sleep(Duration::from_secs(20)).await;
    jobs.drain(Duration::ZERO).await;
    let service = jobs.layer().layer(slow(&calls));
    send(&service, keyed("/", "key")).await.location();
    let refused = send(&service, keyed("/", "another")).await;
    assert_eq!(problem(&refused), "draining");
}

#[tokio::test(start_paused = true)]
async fn joined_job_is_not_evicted() {
    let calls = Counter::default();
    // The budget holds some ended jobs, or fewer and an unfinished one.
    let jobs = Jobs::builder().max_bytes(8_000).build();
    let service = jobs.layer().layer(slow(&calls));
    let first = send(&service, keyed("/", "key")).await;
    ended(&service, &first).await;
    for _ in 0..6 {
        let other = send(&service, post("/")).await;
        ended(&service, &other).await;
    }
    let joined = send(&service, keyed("/", "key")).await;
    assert_eq!((joined.id(), calls.count()), (first.id(), 7));
    for _ in 0..6 {
        let other = send(&service, post("/")).await;
        ended(&service, &other).await;
    }
    let evicted = send(&service, get(first.location())).await;
    assert_eq!(evicted.status, StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn key_belongs_to_its_owner() {
    let calls = Counter::default();
    let by_name = |head: &http::request::Parts| head.headers.get("user").map(Owner::new);
    let jobs = Jobs::builder().owner(by_name).build();
    let service = jobs.layer().layer(slow(&calls));
    let as_user = |user: &'static str| with(keyed("/", "key"), &[("user", user)]);
    let mine = send(&service, as_user("me")).await;
    let yours = send(&service, as_user("you")).await;
    assert_ne!(mine.id(), yours.id());
    assert_eq!(send(&service, as_user("me")).await.id(), mine.id());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn body_over_the_limit_with_a_key_is_refused() {
    let jobs = Jobs::builder().max_body(10).build();
    let service = jobs
        .layer()
        .when(When::After(Duration::ZERO))
        .layer(inner(async |_| {
            pending::<Result<Response<Body>, Failed>>().await
        }));
    let request = keyed("/", "key").map(|_| Body::from("more than ten bytes"));
    let answer = send(&service, request).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}
