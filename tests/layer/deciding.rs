//! Decides which requests become jobs, and when a running call becomes one.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use http::{Method, Response, StatusCode, request::Parts};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service};
use tower_accepted::{AcceptedLayer, Filter, JobHandle, Jobs, Policy, Status, When, store::Store};

use crate::{slow_store::SlowStore, support::*};

const DELAY: Duration = Duration::from_millis(300);

#[tokio::test(start_paused = true)]
async fn policy_and_preferences_decide_together() {
    // Policy, preferences, seconds that the call takes, status of the response.
    let cases = [
        (When::Always, None, 0, 202),
        (When::Always, Some("respond-async"), 0, 202),
        (When::Always, Some("respond-async, wait=5"), 2, 200),
        (When::Always, Some("respond-async, wait=5"), 20, 202),
        (When::Always, Some("wait=5"), 2, 200),
        (When::Always, Some("wait=5"), 20, 202),
        (When::After(DELAY), None, 0, 200),
        (When::After(DELAY), None, 2, 202),
        (When::After(DELAY), Some("respond-async"), 0, 202),
        (When::After(DELAY), Some("respond-async, wait=5"), 2, 200),
        (When::After(DELAY), Some("wait=5"), 20, 202),
        (When::After(Duration::ZERO), None, 0, 200),
        (When::After(Duration::ZERO), None, 1, 202),
        (When::Preferred, None, 20, 200),
        (When::Preferred, Some("respond-async"), 0, 202),
        (When::Preferred, Some("respond-async, wait=5"), 2, 200),
        (When::Preferred, Some("respond-async, wait=5"), 20, 202),
        (When::Preferred, Some("wait=5"), 20, 200),
        (When::Never, Some("respond-async"), 20, 200),
    ];
    for (when, prefer, seconds, status) in cases {
        let service = AcceptedLayer::new()
            .when(when)
            .layer(inner(move |_| async move {
                if seconds > 0 {
                    sleep(Duration::from_secs(seconds)).await;
                }
                ok("")
            }));
        let mut request = post("/");
        if let Some(prefer) = prefer {
            let prefer = prefer.parse().unwrap();
            request.headers_mut().insert("prefer", prefer);
        }
        let answer = send(&service, request).await;
        assert_eq!(answer.status, status, "{when:?}, {prefer:?}, {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn wait_of_a_client_is_limited() {
    let jobs = Jobs::builder().max_wait(Duration::from_secs(10)).build();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(Duration::from_secs(30)).await;
        ok("")
    }));
    let mut request = post("/");
    let prefer = "wait=3600".parse().unwrap();
    request.headers_mut().insert("prefer", prefer);
    let answer = timeout(Duration::from_secs(11), send(&service, request)).await;
    assert_eq!(answer.unwrap().status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn safe_methods_pass_through_by_default() {
    let slow = inner(async |_| {
        sleep(DELAY * 2).await;
        ok("inline")
    });
    for when in [
        When::Always,
        When::After(DELAY),
        When::Preferred,
        When::Streamed,
        When::Never,
    ] {
        let jobs = Jobs::new();
        let same = jobs.layer().when(when).layer(slow.clone());
        let by_closure = jobs.layer().when_fn(move |_| when).layer(slow.clone());
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            let prefers = || with(request(method, "/"), &[("prefer", "respond-async")]);
            for answer in [
                send(&same, request(method, "/")).await,
                send(&same, prefers()).await,
                send(&by_closure, prefers()).await,
            ] {
                assert_eq!(answer.status, StatusCode::OK, "{when:?}, {method}");
                assert_eq!(answer.header("link"), None, "{when:?}, {method}");
            }
        }
        assert!(format!("{jobs:?}").contains("jobs: 0"), "{jobs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn any_method_includes_the_safe_ones() {
    let jobs = Jobs::new();
    let slow = inner(async |_| {
        sleep(DELAY * 2).await;
        ok("inline")
    });
    for (when, status, is_job) in [
        (When::Always, 202, true),
        (When::After(DELAY), 202, true),
        (When::Preferred, 200, false),
        (When::Streamed, 200, true),
        (When::Never, 200, false),
    ] {
        let same = jobs.layer().when(when).any_method().layer(slow.clone());
        let by_closure = jobs.layer().when_fn(move |_| when).any_method();
        let by_closure = by_closure.layer(slow.clone());
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "POST"] {
            for answer in [
                send(&same, request(method, "/")).await,
                send(&by_closure, request(method, "/")).await,
            ] {
                assert_eq!(answer.status, status, "{when:?}, {method}");
                let has_monitor = answer.header("link").is_some();
                assert_eq!(has_monitor, is_job, "{when:?}, {method}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unsafe_methods_become_jobs() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("inline")));
    for method in ["POST", "PUT", "PATCH", "DELETE", "PURGE"] {
        let answer = send(&service, request(method, "/")).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{method}");
    }
    let layer = AcceptedLayer::new().when_fn(|head| match head.uri.path() {
        "/slow" => When::Always,
        _ => When::Never,
    });
    let service = layer.layer(inner(async |_| ok("inline")));
    assert_eq!(send(&service, post("/slow")).await.status, 202);
    assert_eq!(send(&service, post("/fast")).await.status, 200);
}

/// Makes each `GET` a job.
#[derive(Clone)]
struct Gets;

impl Policy for Gets {
    fn when(&self, head: &Parts) -> When {
        match head.method {
            Method::GET => When::Always,
            _ => When::Never,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn policy_decides_about_every_method() {
    let service = AcceptedLayer::new().policy(Gets);
    let service = service.layer(inner(async |_| ok("inline")));
    assert_eq!(send(&service, get("/")).await.status, 202);
    assert_eq!(send(&service, post("/")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn bidirectional_request_is_never_a_job() {
    let service = AcceptedLayer::new().any_method();
    let service = service.layer(inner(async |_| ok("")));
    let mut upgrade = get("/socket");
    upgrade
        .headers_mut()
        .insert("upgrade", "websocket".parse().unwrap());
    let mut grpc = post("/package.Service/Method");
    let content_type = "application/grpc+proto".parse().unwrap();
    grpc.headers_mut().insert("content-type", content_type);
    for request in [upgrade, grpc, request("CONNECT", "/")] {
        assert_eq!(send(&service, request).await.status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn running_call_becomes_a_job_without_a_restart() {
    let (calls, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().when(When::After(DELAY)).layer(inner({
        let calls = calls.clone();
        move |_| {
            calls.up();
            async {
                sleep(Duration::from_secs(5)).await;
                ok("the only one")
            }
        }
    }));
    let accepted = send(&service, post("/")).await;
    assert_eq!(accepted.json()["status"], "running");
    assert!(accepted.json()["startedAt"].is_string());
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    assert_eq!(result(&service, &accepted).await.text(), "the only one");
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn inline_response_leaves_no_job() {
    let (ids, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().when(When::After(DELAY)).layer(inner({
        let ids = ids.clone();
        move |_| {
            let ids = ids.clone();
            async move {
                sleep(DELAY / 2).await;
                if JobHandle::current().id().is_some() {
                    ids.up();
                }
                ok("inline")
            }
        }
    }));
    let answer = send(&service, post("/")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "inline"));
    assert_eq!((ids.count(), jobs.unfinished()), (0, 0));
    assert!(format!("{jobs:?}").contains("jobs: 0"), "{jobs:?}");
}

#[tokio::test(start_paused = true)]
async fn disconnect_drops_only_a_call_that_is_no_job() {
    for (disconnect_after, dropped_early) in [(DELAY / 2, 1), (DELAY * 2, 0)] {
        let (dropped, jobs) = (Counter::default(), Jobs::new());
        let service = jobs.layer().when(When::After(DELAY)).layer(inner({
            let dropped = dropped.clone();
            move |_| {
                let guard = OnDrop(dropped.clone());
                async move {
                    let _guard = guard;
                    sleep(Duration::from_secs(5)).await;
                    ok("")
                }
            }
        }));
        let client = tokio::spawn(async move { send(&service, post("/")).await });
        sleep(disconnect_after).await;
        client.abort();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(dropped.count(), dropped_early);
        assert_eq!(jobs.unfinished(), 1 - dropped_early);
        sleep(Duration::from_secs(5)).await;
        assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
    }
}

/// Disconnects after `disconnect_after` from a call that takes 5 s, and returns the states of the
/// jobs in the end.
async fn states_after_disconnect<St: Store>(
    jobs: &Jobs<St>,
    when: When,
    prefer: &'static str,
    disconnect_after: Duration,
) -> Vec<Status> {
    let service = jobs.layer().when(when).layer(inner(async |_| {
        sleep(Duration::from_secs(5)).await;
        ok("")
    }));
    let request = with(post("/"), &[("prefer", prefer)]);
    let client = tokio::spawn(async move { send(&service, request).await });
    sleep(disconnect_after).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(jobs.unfinished(), 0, "{when:?}, {prefer}");
    let page = jobs.list(&Filter::new()).await.unwrap();
    page.jobs.iter().map(|job| job.status).collect()
}

#[tokio::test(start_paused = true)]
async fn disconnect_during_an_owed_wait_makes_a_job() {
    let second = Duration::from_secs(1);
    for (when, prefer, states) in [
        (When::Always, "wait=20", &[Status::Succeeded][..]),
        (When::Always, "respond-async, wait=20", &[Status::Succeeded]),
        (
            When::After(DELAY),
            "respond-async, wait=20",
            &[Status::Succeeded],
        ),
        (
            When::Preferred,
            "respond-async, wait=20",
            &[Status::Succeeded],
        ),
        (When::After(DELAY), "wait=20", &[]),
        (When::Preferred, "wait=20", &[]),
    ] {
        let ended = states_after_disconnect(&Jobs::new(), when, prefer, second).await;
        assert_eq!(ended, states, "{when:?}, {prefer}");
        let jobs = Jobs::builder().store(SlowStore::new()).build();
        let ended = states_after_disconnect(&jobs, when, prefer, second).await;
        assert_eq!(ended, states, "slow store, {when:?}, {prefer}");
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_never_drops_an_owed_call() {
    let (started, ended) = (Counter::default(), Counter::default());
    let jobs = Jobs::builder().store(SlowStore::new()).build();
    let mut service = jobs.layer().layer(inner({
        let (started, ended) = (started.clone(), ended.clone());
        move |_| {
            started.up();
            let ended = ended.clone();
            async move {
                sleep(DELAY).await;
                ended.up();
                ok("")
            }
        }
    }));
    // The call, then the store, is awaited at the later polls.
    for polls in 1..20 {
        let request = with(post("/"), &[("prefer", "wait=0")]);
        let mut answer = Box::pin(service.call(request));
        for _ in 0..polls {
            let polled = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await;
            if polled.is_ready() {
                break;
            }
        }
        drop(answer);
        sleep(DELAY * 2).await;
        assert_eq!(ended.count(), started.count(), "{polls} polls");
        assert_eq!(jobs.unfinished(), 0, "{polls} polls");
    }
    assert!(ended.count() > 0);
}

#[tokio::test(start_paused = true)]
async fn panic_during_an_owed_wait_makes_no_job() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(DELAY).await;
        panic!("in the call");
        #[expect(unreachable_code, reason = "names the type")]
        ok("")
    }));
    let request = with(post("/"), &[("prefer", "wait=5")]);
    let client = tokio::spawn(async move { send(&service, request).await });
    assert!(client.await.unwrap_err().is_panic());
    assert!(format!("{jobs:?}").contains("jobs: 0"), "{jobs:?}");
}

#[tokio::test(start_paused = true)]
async fn panic_propagates_unless_the_call_is_a_job() {
    let panics = |after| {
        let jobs = Jobs::new();
        jobs.layer()
            .when(When::After(DELAY))
            .layer(inner(move |_| async move {
                sleep(after).await;
                panic!("in the call");
                #[expect(unreachable_code, reason = "names the type")]
                ok("")
            }))
    };
    let inline = panics(DELAY / 2);
    let client = tokio::spawn(async move { send(&inline, post("/")).await });
    assert!(client.await.unwrap_err().is_panic());
    let accepts = panics(DELAY * 2);
    let accepted = send(&accepts, post("/")).await;
    let document = ended(&accepts, &accepted).await;
    assert_eq!(document["error"]["code"], "panic");
}

#[tokio::test(start_paused = true)]
async fn inline_error_of_the_service_is_returned() {
    let service = AcceptedLayer::new()
        .when(When::After(DELAY))
        .layer(inner(async |_| Err::<Response<Body>, _>(Failed)));
    let error = tower::ServiceExt::oneshot(service, post("/")).await;
    assert!(matches!(error, Err(Failed)));
}

#[tokio::test(start_paused = true)]
async fn inline_body_streams_past_the_delay() {
    let service = AcceptedLayer::new()
        .when(When::After(DELAY))
        .layer(inner(async |_| {
            let frames = futures_util::stream::unfold(0, |frame| async move {
                sleep(Duration::from_secs(1)).await;
                (frame < 10).then(|| (Ok::<_, Failed>("frame "), frame + 1))
            });
            Ok(Response::new(Body::from_stream(frames)))
        }));
    let answer = send(&service, post("/")).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 60));
}

#[tokio::test(start_paused = true)]
async fn delay_includes_the_time_in_the_queue() {
    let jobs = Jobs::new();
    let service = tower::ServiceBuilder::new()
        .layer(jobs.layer().when(When::After(DELAY)))
        .layer(tower::limit::GlobalConcurrencyLimitLayer::new(1))
        .service(inner(async |_| {
            pending::<Result<Response<Body>, Failed>>().await
        }));
    let running = send(&service, post("/")).await;
    assert_eq!(running.json()["status"], "running");
    let queued = timeout(DELAY * 2, send(&service, post("/"))).await.unwrap();
    assert_eq!(queued.json()["status"], "queued");
    assert_eq!(queued.json()["startedAt"], serde_json::Value::Null);
}

#[tokio::test(start_paused = true)]
async fn inline_response_releases_its_permit_at_once() {
    let jobs = Jobs::new();
    let layer = jobs.layer().when(When::After(DELAY));
    let mut service = layer.layer(inner(async |_| ok("")));
    let mut answer = pin!(service.call(post("/")));
    let response = poll_fn(|cx| answer.as_mut().poll(cx)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // The future is complete but not dropped.
    assert_eq!(jobs.unfinished(), 0);
}
