//! Refuses requests over a limit without leaving anything behind.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower::Layer;
use tower_accepted::{
    Jobs, Owner, When,
    store::{Budget, MemoryStore, Store},
};

use crate::{slow_store::SlowStore, support::*};

/// Sends a request that must be refused before the inner service is called.
async fn assert_refused(
    jobs: &Jobs,
    request: http::Request<Body>,
    status: StatusCode,
    problem: &str,
) {
    let calls = Counter::default();
    let service = jobs.layer().layer(inner({
        let calls = calls.clone();
        move |_| {
            calls.up();
            async { ok("") }
        }
    }));
    let before = format!("{jobs:?}");
    let answer = send(&service, request).await;
    assert_eq!(answer.status, status);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let uri = format!("urn:problem-type:tower-accepted:{problem}");
    assert_eq!(answer.json()["type"], uri);
    assert_eq!(answer.json()["status"], status.as_u16());
    assert_eq!(calls.count(), 0, "the inner service was called");
    assert_eq!(format!("{jobs:?}"), before, "the registry has changed");
    let is_busy = status == StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(answer.header("retry-after").is_some(), is_busy);
}

fn streamed(
    frames: impl futures_util::Stream<Item = Result<Bytes, Failed>> + Send + 'static,
) -> http::Request<Body> {
    post("/").map(|_| Body::from_stream(frames))
}

const FRAME: Bytes = Bytes::from_static(b"a frame of 20 bytes.");

#[tokio::test(start_paused = true)]
async fn body_over_the_limit_is_refused() {
    let jobs = Jobs::builder().max_body(50).build();
    let declared = post("/").map(|_| Body::from(vec![0; 51]));
    assert_refused(
        &jobs,
        declared,
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
    )
    .await;
    let endless = streamed(stream::repeat_with(|| Ok(FRAME)));
    assert_refused(
        &jobs,
        endless,
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn stalled_body_is_refused() {
    let jobs = Jobs::builder()
        .body_timeout(Duration::from_secs(10))
        .build();
    let stalls = streamed(stream::iter([Ok(FRAME)]).chain(stream::pending()));
    assert_refused(&jobs, stalls, StatusCode::REQUEST_TIMEOUT, "body-timeout").await;
    let trickles = stream::unfold((), |()| async {
        sleep(Duration::from_secs(1)).await;
        Some((Ok(FRAME), ()))
    });
    assert_refused(
        &jobs,
        streamed(trickles),
        StatusCode::REQUEST_TIMEOUT,
        "body-timeout",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn broken_body_is_refused() {
    let breaks = streamed(stream::iter([Ok(FRAME), Err(Failed)]));
    assert_refused(&Jobs::new(), breaks, StatusCode::BAD_REQUEST, "body-broken").await;
}

#[tokio::test(start_paused = true)]
async fn body_over_the_budget_is_refused() {
    let jobs = Jobs::builder().max_bytes(40_000).build();
    let service = jobs.layer().layer(inner(async |_| ok("done")));
    let uploads: Vec<_> = (0..2)
        .map(|_| {
            let service = service.clone();
            let stalled = stream::iter([Ok(Bytes::from(vec![0; 4_999]))]);
            let stalled = streamed(stalled.chain(stream::pending()));
            tokio::spawn(async move { send(&service, stalled).await })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    let body = || streamed(stream::iter([Ok(FRAME)]));
    assert_refused(&jobs, body(), StatusCode::SERVICE_UNAVAILABLE, "full").await;
    for upload in uploads {
        upload.abort();
        assert!(upload.await.is_err(), "aborted");
    }
    send(&service, body()).await.location();
    // A body over an eighth of the budget has never room.
    let large = post("/").map(|_| Body::from(vec![0; 5_001]));
    assert_refused(
        &jobs,
        large,
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
    )
    .await;
    // The job itself needs bytes of the budget.
    let jobs = Jobs::builder().max_bytes(1_000).build();
    assert_refused(&jobs, body(), StatusCode::SERVICE_UNAVAILABLE, "full").await;
}

#[tokio::test(start_paused = true)]
async fn job_over_the_limit_is_refused_until_one_ends() {
    let jobs = Jobs::builder().max_unfinished(2).build();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(Duration::from_secs(10)).await;
        ok("")
    }));
    send(&service, post("/")).await;
    send(&service, post("/")).await;
    assert_refused(&jobs, post("/"), StatusCode::SERVICE_UNAVAILABLE, "full").await;
    sleep(Duration::from_secs(11)).await;
    send(&service, post("/")).await.location();
}

#[tokio::test(start_paused = true)]
async fn request_counts_as_unfinished_while_it_is_read() {
    let jobs = Jobs::builder().max_unfinished(1).build();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let slow = tokio::spawn({
        let service = service.clone();
        async move { send(&service, streamed(stream::pending())).await }
    });
    sleep(Duration::from_secs(1)).await;
    assert_refused(&jobs, post("/"), StatusCode::SERVICE_UNAVAILABLE, "full").await;
    // A disconnect while the body is read releases the permit.
    slow.abort();
    assert!(slow.await.unwrap_err().is_cancelled());
    assert_eq!(jobs.unfinished(), 0);
}

#[tokio::test(start_paused = true)]
async fn drained_registry_refuses_requests() {
    let jobs = Jobs::new();
    assert_eq!(jobs.drain(Duration::ZERO).await, 0);
    assert_refused(
        &jobs,
        post("/"),
        StatusCode::SERVICE_UNAVAILABLE,
        "draining",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn optional_job_over_a_limit_runs_inline() {
    let echo = inner(async |request| {
        let body = request.into_body().collect().await.map_err(|_| Failed)?;
        Ok(Response::new(Body::from(body.to_bytes())))
    });
    let frames = || stream::iter([Ok(FRAME), Ok(FRAME), Ok(FRAME)]);
    let slowly = frames().then(async |frame| {
        sleep(Duration::from_secs(8)).await;
        frame
    });
    let after = When::After(Duration::from_secs(1));
    for (jobs, request) in [
        (
            Jobs::builder().max_body(50),
            post("/").map(|_| Body::from(FRAME.repeat(3))),
        ),
        (Jobs::builder().max_body(50), streamed(frames())),
        (Jobs::builder().max_bytes(50), streamed(frames())),
        (Jobs::builder().max_bytes(1_000), streamed(frames())),
        (
            Jobs::builder().body_timeout(Duration::from_secs(10)),
            streamed(slowly),
        ),
        (Jobs::builder().max_unfinished(0), streamed(frames())),
    ] {
        let jobs = jobs.build();
        let service = jobs.layer().when(after).layer(echo.clone());
        let answer = send(&service, request).await;
        assert_eq!(
            (answer.status, answer.body),
            (StatusCode::OK, FRAME.repeat(3).into())
        );
        assert!(format!("{jobs:?}").contains("used: 0"), "{jobs:?}");
    }
}

/// Sends a request with `respond-async` whose job is refused, under every policy and with and
/// without a key. `status` is that of the refusal.
async fn assert_preference_is_optional<St: Store>(
    jobs: &Jobs<St>,
    request: impl Fn() -> http::Request<Body>,
    status: u16,
) {
    let policies = [
        When::After(Duration::from_secs(1)),
        When::Preferred,
        When::Always,
    ];
    for when in policies {
        for key in [None, Some("a-key")] {
            let service = jobs.layer().when(when).layer(inner(async |request| {
                let body = request.into_body().collect().await.map_err(|_| Failed)?;
                Ok(Response::new(Body::from(body.to_bytes())))
            }));
            let sent = request().into_body().collect().await.unwrap().to_bytes();
            let mut request = with(request(), &[("prefer", "respond-async")]);
            if let Some(key) = key {
                request = with(request, &[("idempotency-key", key)]);
            }
            let answer = send(&service, request).await;
            let case = format!("{when:?}, key: {key:?}, {status}");
            if when == When::Always || key.is_some() {
                assert_eq!(answer.status, status, "{case}");
            } else {
                assert_eq!(answer.status, StatusCode::OK, "{case}");
                assert_eq!(answer.body, sent, "{case}");
                assert_eq!(answer.header("vary"), Some("prefer"), "{case}");
                assert_eq!(answer.header("preference-applied"), None, "{case}");
            }
        }
    }
    assert_eq!(jobs.unfinished(), 0, "{status}");
}

#[tokio::test(start_paused = true)]
async fn unmet_preference_refuses_no_request() {
    let frames = || stream::iter([Ok(FRAME), Ok(FRAME), Ok(FRAME)]);
    let streams = || streamed(frames());
    let whole = || post("/").map(|_| Body::from(FRAME.repeat(3)));
    let trickles = || {
        streamed(frames().then(async |frame| {
            sleep(Duration::from_secs(8)).await;
            frame
        }))
    };
    let jobs = Jobs::builder().max_body(50).build();
    assert_preference_is_optional(&jobs, whole, 413).await;
    assert_preference_is_optional(&jobs, streams, 413).await;
    let impatient = Jobs::builder().body_timeout(Duration::from_secs(10));
    assert_preference_is_optional(&impatient.build(), trickles, 408).await;
    let owned = Jobs::builder().owner(|_| Some(Owner::new("me")));
    let owner_full = owned.max_unfinished_per_owner(0).build();
    assert_preference_is_optional(&owner_full, streams, 429).await;
    let full = Jobs::builder().max_unfinished(0).build();
    assert_preference_is_optional(&full, streams, 503).await;
    let out_of_memory = Jobs::builder().max_bytes(1_000).build();
    assert_preference_is_optional(&out_of_memory, streams, 503).await;
    assert_preference_is_optional(&out_of_memory, || post("/"), 503).await;
    let draining = Jobs::new();
    draining.drain(Duration::ZERO).await;
    assert_preference_is_optional(&draining, streams, 503).await;
    let store_is_down = Jobs::builder().store(SlowStore::down()).build();
    assert_preference_is_optional(&store_is_down, streams, 503).await;
}

#[tokio::test(start_paused = true)]
async fn wait_of_a_client_does_not_bypass_the_limits() {
    let jobs = Jobs::builder().max_unfinished(0).max_body(10).build();
    for request in [post("/"), post("/").map(|_| Body::from(vec![0; 11]))] {
        let waits = with(request, &[("prefer", "wait=0")]);
        let service = jobs.layer().layer(inner(async |_| ok("inline")));
        assert!(send(&service, waits).await.status.as_u16() >= 400);
    }
}

#[tokio::test(start_paused = true)]
async fn call_over_the_budget_stays_inline() {
    let jobs = Jobs::builder().max_bytes(50).build();
    let after = When::After(Duration::from_secs(1));
    let service = jobs.layer().when(after).layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("inline")
    }));
    let answer = send(&service, post("/")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "inline"));
}

#[tokio::test(start_paused = true)]
async fn request_counts_until_its_call_ends() {
    let jobs = Jobs::builder().max_bytes(22_000).build();
    let service = jobs.layer().layer(inner(async |request| {
        let body = request.into_body().collect().await.map_err(|_| Failed)?;
        let body = Vec::from(body.to_bytes());
        sleep(Duration::from_secs(10)).await;
        ok(if body.len() == 1_000 { "whole" } else { "" })
    }));
    let body = || post("/").map(|_| Body::from(vec![0; 1_000]));
    let first = send(&service, body()).await;
    send(&service, body()).await.location();
    sleep(Duration::from_secs(1)).await;
    let answer = send(&service, body()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ended(&service, &first).await["status"], "succeeded");
    send(&service, body()).await.location();
}

#[tokio::test(start_paused = true)]
async fn result_counts_whatever_its_number_of_frames() {
    let used = async |frames: usize, pause: bool| {
        let store = MemoryStore::new(Duration::from_secs(3600), Budget::new(1 << 20));
        let jobs = Jobs::builder().store(store.clone()).build();
        let service = jobs.layer().layer(inner(move |_| async move {
            let frames = stream::iter(vec![vec![0; 20_000 / frames]; frames]);
            let frames = frames.then(move |frame| async move {
                if pause {
                    sleep(Duration::from_secs(1)).await;
                }
                Ok::<_, Failed>(frame)
            });
            Ok(Response::new(Body::from_stream(frames)))
        }));
        let accepted = send(&service, post("/")).await;
        ended(&service, &accepted).await;
        store.budget().used()
    };
    let one = used(1, false).await;
    assert!(one > 20_000);
    for (frames, pause) in [(4, false), (1, true), (4, true)] {
        assert_eq!(used(frames, pause).await, one, "{frames} frames, {pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn unready_service_does_not_delay_the_202() {
    let (service, mut handle) = tower_test::mock::pair::<(), ()>();
    handle.allow(0);
    let service = tower::ServiceBuilder::new()
        .layer(Jobs::new().layer())
        .map_request(|_: http::Request<tower_accepted::RequestBody<Body>>| ())
        .map_response(|()| Response::new(Body::empty()))
        .service(service);
    let accepted = timeout(Duration::from_secs(1), send(&service, post("/"))).await;
    assert_eq!(accepted.unwrap().json()["status"], "queued");
}

#[tokio::test(start_paused = true)]
async fn shedding_refuses_what_would_run_inline() {
    let full = || Jobs::builder().max_unfinished(1);
    let owned = || {
        let owned = Jobs::builder().owner(|_| Some(Owner::new("me")));
        owned.max_unfinished_per_owner(1)
    };
    let prefers = || with(post("/"), &[("prefer", "respond-async")]);
    for (jobs, status) in [(full(), 503), (owned(), 429)] {
        for sheds in [false, true] {
            let jobs = jobs.clone().shed_when_full(sheds).build();
            let expected = if sheds { status } else { 200 };
            let slow = inner(async |_| {
                sleep(Duration::from_secs(5)).await;
                ok("inline")
            });
            // A call that is answered inline takes the only place.
            let after = jobs.layer().when(When::After(Duration::from_secs(10)));
            let after = after.layer(slow.clone());
            let preferred = jobs.layer().when(When::Preferred).layer(slow.clone());
            let streamed = jobs.layer().when(When::Streamed).layer(slow.clone());
            let first = tokio::spawn({
                let after = after.clone();
                async move { send(&after, post("/")).await }
            });
            sleep(Duration::from_secs(1)).await;
            let (one, two, three) = tokio::join!(
                send(&after, post("/")),
                send(&preferred, prefers()),
                send(&streamed, post("/")),
            );
            for answer in [one, two, three] {
                assert_eq!(answer.status, expected, "{sheds}");
                assert_eq!(answer.header("retry-after").is_some(), sheds);
            }
            assert_eq!(first.await.unwrap().text(), "inline");
            // A request that is never a job is not counted.
            let never = jobs.layer().when(When::Never).layer(slow.clone());
            let (first, never, not_preferred) = tokio::join!(
                send(&after, post("/")),
                send(&never, prefers()),
                send(&preferred, post("/")),
            );
            for answer in [first, never, not_preferred] {
                assert_eq!(answer.status, StatusCode::OK, "{sheds}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn large_body_is_shed_too() {
    let jobs = Jobs::builder().max_unfinished(0).max_body(10);
    let jobs = jobs.shed_when_full(true).build();
    let after = When::After(Duration::from_secs(1));
    let service = jobs.layer().when(after).layer(inner(async |_| ok("")));
    let large = post("/").map(|_| Body::from(vec![0; 11]));
    let refused = send(&service, large).await;
    let kind = refused.json()["type"].clone();
    assert!(kind.as_str().unwrap().ends_with(":full"), "{kind}");
    // A client can repeat it at another process.
    jobs.drain(Duration::ZERO).await;
    let refused = send(&service, post("/")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn inline_call_with_a_large_body_counts() {
    for sheds in [false, true] {
        let jobs = Jobs::builder().max_unfinished(1).max_body(10);
        let jobs = jobs.shed_when_full(sheds).build();
        let after = jobs.layer().when(When::After(Duration::from_secs(1)));
        let service = after.layer(inner(async |_| {
            sleep(Duration::from_secs(5)).await;
            ok("inline")
        }));
        // One declares its length, and the other one does not.
        let declared = post("/").map(|_| Body::from(vec![0; 11]));
        for large in [declared, streamed(stream::iter([Ok(FRAME)]))] {
            let first = tokio::spawn({
                let service = service.clone();
                async move { send(&service, large).await }
            });
            sleep(Duration::from_secs(1)).await;
            assert_eq!(jobs.unfinished(), usize::from(sheds));
            let second = send(&service, post("/")).await;
            assert_eq!(second.status == StatusCode::SERVICE_UNAVAILABLE, sheds);
            assert_eq!(first.await.unwrap().text(), "inline");
            if !sheds {
                ended(&service, &second).await;
            }
            assert_eq!(jobs.unfinished(), 0);
        }
    }
}
