//! Remembers idempotency keys: for how long, how many, and which outcomes.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, Service, util::BoxCloneSyncService};
use tower_accepted::{
    Idempotency, Jobs, Outcomes, RequestBody, Unreached, When,
    store::{Budget, MemoryStore, Store},
};

use crate::{suites::routes::Inner, support::*};

const HOUR: Duration = Duration::from_secs(3600);

fn keyed(key: &str) -> Request<Body> {
    keyed_with(key, "/", "a payment")
}

fn keyed_with(key: &str, path: &str, body: &'static str) -> Request<Body> {
    with(post(path), &[("idempotency-key", key)]).map(|_| Body::from(body))
}

fn problem(answer: &Answer) -> String {
    let document = answer.json();
    let name = document["type"].as_str().unwrap().rsplit(':').next();
    name.unwrap().to_owned()
}

/// Creates a service that counts its calls, and answers with the status in the path.
fn counting(calls: &Counter) -> Inner {
    let calls = calls.clone();
    BoxCloneSyncService::new(inner(move |request: Request<RequestBody<Body>>| {
        calls.up();
        async move {
            let path = request.uri().path().trim_start_matches('/');
            let response = match path {
                "panic" => panic!("on purpose"),
                "error" => return Err(Failed),
                "unreached" => {
                    let refused = Response::builder().status(502).extension(Unreached);
                    return Ok(refused.body(Body::empty()).unwrap());
                }
                "large" => return Ok(Response::new(Body::from(vec![7; 300_000]))),
                status => Response::builder().status(status.parse().unwrap_or(200)),
            };
            Ok(response.body(Body::from("done")).unwrap())
        }
    }))
}

fn assert_gone(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::GONE);
    assert_eq!(problem(answer), "gone");
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
}

#[tokio::test(start_paused = true)]
async fn key_outlives_the_eviction_of_its_result() {
    let calls = Counter::default();
    let jobs = Jobs::builder().max_bytes(2 << 20).build();
    for when in [When::Always, When::After(HOUR)] {
        let service = jobs.layer().when(when).layer(counting(&calls));
        let key = format!("{when:?}");
        send(&service, keyed(&key)).await;
        sleep(Duration::from_millis(10)).await;
        let before = calls.count();
        let others = jobs.layer().layer(counting(&Counter::default()));
        for _ in 0..10 {
            send(&others, post("/large")).await;
            sleep(Duration::from_millis(10)).await;
        }
        assert_gone(&send(&service, keyed(&key)).await);
        let other = send(&service, keyed_with(&key, "/", "another payment")).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(calls.count(), before, "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn key_outlives_the_retention_of_its_job() {
    let calls = Counter::default();
    for (retain, keep_for, remembered) in [
        (HOUR, None, 24 * HOUR),
        (48 * HOUR, None, 48 * HOUR),
        (HOUR, Some(2 * HOUR), 2 * HOUR),
    ] {
        let jobs = Jobs::builder().retain(retain).build();
        let mut idempotency = Idempotency::new();
        if let Some(time) = keep_for {
            idempotency = idempotency.keep_for(time);
        }
        let layer = jobs.layer().idempotency(idempotency);
        let service = layer.layer(counting(&calls));
        let before = calls.count();
        let first = send(&service, keyed("key")).await.id();
        sleep(remembered - Duration::from_secs(1)).await;
        let repeat = send(&service, keyed("key")).await;
        if retain < remembered {
            assert_gone(&repeat);
        } else {
            assert_eq!(repeat.id(), first);
        }
        assert_eq!(calls.count(), before + 1);
        sleep(Duration::from_secs(2)).await;
        assert_ne!(send(&service, keyed("key")).await.id(), first);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(calls.count(), before + 2);
        sleep(2 * (retain + remembered)).await;
        assert!(format!("{jobs:?}").contains("used: 0"), "{jobs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn remembered_key_delays_the_end_of_no_job() {
    for retain in [Duration::ZERO, HOUR] {
        let store = MemoryStore::new(retain, Budget::new(1 << 20));
        let jobs = Jobs::builder().store(store.clone()).build();
        let service = jobs.layer().layer(counting(&Counter::default()));
        send(&service, keyed("key")).await.location();
        sleep(2 * HOUR).await;
        send(&service, post("/")).await.location();
        sleep(retain + Duration::from_secs(3)).await;
        assert!(store.is_empty(), "{store:?}");
        assert_eq!(store.budget().used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_take_nothing_of_the_budget() {
    let jobs = Jobs::builder().max_bytes(40_000).build();
    let service = jobs.layer().layer(counting(&Counter::default()));
    for key in 0..500 {
        send(&service, keyed(&key.to_string())).await.location();
        sleep(Duration::from_millis(10)).await;
    }
    assert_gone(&send(&service, keyed("0")).await);
    send(&service, post("/")).await.location();
}

#[tokio::test(start_paused = true)]
async fn key_beyond_the_limit_is_refused() {
    let calls = Counter::default();
    let jobs = Jobs::builder().max_keys(2).build();
    let service = jobs.layer().layer(counting(&calls));
    let first = send(&service, keyed("one")).await;
    send(&service, keyed("two")).await.location();
    for when in [When::Always, When::After(HOUR)] {
        let service = jobs.layer().when(when).layer(counting(&calls));
        let refused = send(&service, keyed("three")).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(problem(&refused), "full");
        assert!(refused.header("retry-after").is_some());
    }
    // Repeats, and requests without a key, need no further key.
    assert_eq!(send(&service, keyed("one")).await.id(), first.id());
    send(&service, post("/")).await.location();
    sleep(2 * HOUR).await;
    assert_gone(&send(&service, keyed("one")).await);
    assert_eq!(calls.count(), 3);
    sleep(23 * HOUR).await;
    let third = send(&service, keyed("three")).await;
    send(&service, keyed("four")).await.location();
    assert_eq!(send(&service, keyed("five")).await.status, 503);
    // A deleted job frees its key.
    send(&service, request("DELETE", third.location())).await;
    send(&service, keyed("five")).await.location();
}

#[tokio::test(start_paused = true)]
async fn key_keeps_the_outcomes_of_the_setting() {
    for (path, kept_by_final) in [
        ("/200", true),
        ("/404", true),
        ("/409", true),
        ("/429", false),
        ("/500", false),
        ("/503", false),
        ("/panic", false),
        ("/error", false),
    ] {
        for (outcomes, is_kept) in [(Outcomes::All, true), (Outcomes::Final, kept_by_final)] {
            let calls = Counter::default();
            let layer = Jobs::new()
                .layer()
                .idempotency(Idempotency::new().keep(outcomes));
            let service = layer.layer(counting(&calls));
            let first = send(&service, keyed_with("key", path, "")).await.id();
            sleep(Duration::from_secs(1)).await;
            let second = send(&service, keyed_with("key", path, "")).await.id();
            sleep(Duration::from_secs(1)).await;
            let case = format!("{path}, {outcomes:?}");
            assert_eq!(first == second, is_kept, "{case}");
            assert_eq!(calls.count(), if is_kept { 1 } else { 2 }, "{case}");
        }
    }
}

/// A service that is never ready, or fails before it is called.
#[derive(Clone)]
struct Unready {
    fails: bool,
}

impl Service<Request<RequestBody<Body>>> for Unready {
    type Response = Response<Body>;
    type Error = Failed;
    type Future = std::future::Pending<Result<Response<Body>, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if self.fails {
            Poll::Ready(Err(Failed))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, _: Request<RequestBody<Body>>) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test(start_paused = true)]
async fn unreached_service_has_no_outcome() {
    let calls = Counter::default();
    let jobs = Jobs::builder().job_timeout(HOUR / 2).build();
    let service = jobs.layer().layer(counting(&calls));
    for at in 1..=2 {
        send(&service, keyed_with("key", "/unreached", ""))
            .await
            .location();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(calls.count(), at);
    }
    // A call that never starts fails, or waits until its time is over.
    for (fails, code) in [(true, "inner_error"), (false, "timeout")] {
        let service = jobs.layer().layer(Unready { fails });
        let first = send(&service, keyed_with("other", "/", "")).await;
        sleep(HOUR / 2 + Duration::from_secs(1)).await;
        let end = send(&service, get(first.location())).await.json();
        assert_eq!(end["error"]["code"], code);
        let second = send(&service, keyed_with("other", "/", "")).await;
        assert_ne!(second.id(), first.id(), "{code}");
        send(&service, request("DELETE", second.location())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn job_canceled_in_the_queue_keeps_its_key() {
    let service = Jobs::new().layer().layer(Unready { fails: false });
    let first = send(&service, keyed("key")).await;
    send(&service, post(&format!("{}/cancel", first.location()))).await;
    let repeat = send(&service, keyed("key")).await;
    assert_eq!(repeat.id(), first.id());
    assert_eq!(repeat.json()["status"], "canceled");
}

#[tokio::test(start_paused = true)]
async fn dropped_call_that_never_started_frees_its_key() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(Unready { fails: false });
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let sending = other.spawn(async move { send(&service, keyed("key")).await });
    let first = sending.await.unwrap();
    other.shutdown_background();
    while jobs.unfinished() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let service = jobs.layer().layer(counting(&Counter::default()));
    let end = send(&service, get(first.location())).await.json();
    assert_eq!(end["error"]["code"], "shutdown");
    assert_ne!(send(&service, keyed("key")).await.id(), first.id());
}

/// Sends pairs of requests with one key, and checks which of the second ones are repeats.
async fn assert_repeats<const N: usize>(
    idempotency: Idempotency,
    pairs: [([(&str, &'static str); 2], bool); N],
) {
    let jobs = Jobs::new();
    let layer = jobs.layer().idempotency(idempotency);
    let service = layer.layer(counting(&Counter::default()));
    for (at, (pair, is_repeat)) in pairs.into_iter().enumerate() {
        let [first, second] = pair.map(|(content_type, body)| {
            let request = keyed_with(&format!("key {at}"), "/", body);
            send(&service, with(request, &[("content-type", content_type)]))
        });
        first.await.location();
        let status = second.await.status;
        let expected = if is_repeat { 202 } else { 422 };
        assert_eq!(status, expected, "{pair:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn boundary_of_a_repeat_does_not_matter() {
    let one = (
        "multipart/form-data; boundary=one",
        "--one\r\n\r\n7\r\n--one--\r\n",
    );
    let two = (
        "multipart/form-data; boundary=\"two\"",
        "--two\r\n\r\n7\r\n--two--\r\n",
    );
    let other = (
        "multipart/form-data; boundary=two",
        "--two\r\n\r\n8\r\n--two--\r\n",
    );
    let mixed = ("multipart/mixed; boundary=two", two.1);
    assert_repeats(
        Idempotency::new(),
        [([one, two], false), ([one, one], true)],
    )
    .await;
    let ignoring = Idempotency::new().ignore_boundary(true);
    let pairs = [
        ([one, two], true),
        ([one, other], false),
        ([one, mixed], false),
        ([("text/plain", "--one"), ("text/plain", "--two")], false),
    ];
    assert_repeats(ignoring, pairs).await;
}

#[tokio::test(start_paused = true)]
async fn member_order_of_a_repeat_does_not_matter() {
    let json = |body| ("application/json", body);
    let one = json(r#"{"to":"me","amount":{"eur":7.10,"of":[1,2]}}"#);
    let two = json(r#"{ "amount": { "of": [1, 2], "eur": 7.10 }, "to": "me" }"#);
    let other = json(r#"{"to":"me","amount":{"eur":7.10,"of":[2,1]}}"#);
    let open = [json(r#"{"a":1,"b":2"#), json(r#"{"b":2,"a":1"#)];
    assert_repeats(Idempotency::new(), [([one, two], false)]).await;
    let ignoring = Idempotency::new().ignore_member_order(true);
    let pairs = [
        ([one, two], true),
        ([one, other], false),
        (open, false),
        ([open[0], open[0]], true),
        ([("text/plain", one.1), ("text/plain", two.1)], false),
        (
            [
                ("application/problem+json", one.1),
                ("application/problem+json", two.1),
            ],
            true,
        ),
    ];
    assert_repeats(ignoring, pairs).await;
}

#[tokio::test(start_paused = true)]
async fn own_fingerprint_decides_what_a_repeat_is() {
    let first_word = |_: &http::request::Parts, body: &bytes::Bytes| {
        let mut words = body.split(|byte| *byte == b' ');
        words.next().unwrap_or_default().to_vec()
    };
    let idempotency = Idempotency::new().fingerprint(first_word);
    let text = |body| ("text/plain", body);
    let pairs = [
        ([text("same one"), text("same two")], true),
        ([text("same one"), ("text/html", "same one")], true),
        ([text("same one"), text("other one")], false),
    ];
    assert_repeats(idempotency, pairs).await;
}
