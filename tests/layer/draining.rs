//! Drains a registry.

use std::{future::pending, time::Duration};

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{JobHandle, Jobs, When};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn drain_completes_jobs_and_refuses_new_ones() {
    let (calls, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().layer(inner({
        let calls = calls.clone();
        move |_| {
            calls.up();
            async {
                sleep(Duration::from_secs(20)).await;
                ok("done")
            }
        }
    }));
    let accepted = send(&service, post("/")).await;
    let drain = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.drain(Duration::from_secs(60)).await }
    });
    sleep(Duration::from_secs(1)).await;
    let refused = send(&service, post("/")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
    assert!(
        refused.json()["type"]
            .as_str()
            .unwrap()
            .ends_with(":draining")
    );
    assert_eq!(calls.count(), 1);
    // The monitor responds during a drain.
    let monitor = send(&service, get(accepted.location())).await;
    assert_eq!(monitor.json()["status"], "running");
    assert_eq!(drain.await.unwrap(), 0);
    assert_eq!(result(&service, &accepted).await.text(), "done");
}

#[tokio::test(start_paused = true)]
async fn job_that_outlasts_a_drain_fails_with_shutdown() {
    let (dropped, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().layer(inner({
        let dropped = dropped.clone();
        move |_| {
            let guard = OnDrop(dropped.clone());
            async move {
                // A handle gives no grace period beyond the timeout of the drain.
                let _all = (guard, JobHandle::current());
                pending::<Result<Response<Body>, Failed>>().await
            }
        }
    }));
    let accepted = [
        send(&service, post("/")).await,
        send(&service, post("/")).await,
    ];
    assert_eq!(jobs.drain(Duration::from_secs(10)).await, 2);
    assert_eq!((dropped.count(), jobs.unfinished()), (2, 0));
    for accepted in accepted {
        let document = ended(&service, &accepted).await;
        assert_eq!(document["error"]["code"], "shutdown");
        let result = result(&service, &accepted).await;
        assert_eq!(result.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_a_canceled_call() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| {
        JobHandle::current().canceled().await;
        sleep(Duration::from_secs(3)).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    jobs.cancel(accepted.id()).await.unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(jobs.drain(Duration::from_secs(60)).await, 0);
    assert!(started.elapsed() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn optional_job_runs_inline_during_a_drain() {
    let jobs = Jobs::new();
    let slow = inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("inline")
    });
    let service = jobs
        .layer()
        .when(When::After(Duration::from_secs(2)))
        .layer(slow);
    // One call starts before the drain, the other during it.
    let before = tokio::spawn({
        let service = service.clone();
        async move { send(&service, post("/")).await }
    });
    sleep(Duration::from_secs(1)).await;
    let drain = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.drain(Duration::from_secs(60)).await }
    });
    sleep(Duration::from_millis(1)).await;
    let after = send(&service, post("/")).await;
    assert_eq!((after.status, after.text()), (StatusCode::OK, "inline"));
    assert_eq!(before.await.unwrap().text(), "inline");
    assert_eq!(drain.await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_despite_calls_that_are_no_jobs() {
    let jobs = Jobs::builder().body_timeout(Duration::MAX).build();
    let hangs = inner(async |_| pending::<Result<Response<Body>, Failed>>().await);
    let always = jobs.layer().layer(hangs.clone());
    let after = jobs
        .layer()
        .when(When::After(Duration::from_secs(600)))
        .layer(hangs);
    let stalls = post("/")
        .map(|_| Body::from_stream(futures_util::stream::pending::<Result<&str, Failed>>()));
    let clients = [
        tokio::spawn(async move { send(&always, stalls).await }),
        tokio::spawn(async move { send(&after, post("/")).await }),
    ];
    sleep(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(jobs.drain(Duration::from_secs(10)).await, 0);
    assert_eq!(started.elapsed().as_secs(), 10);
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn grace_period_ends_with_the_drain() {
    let jobs = Jobs::builder()
        .cancel_grace(Duration::from_secs(3600))
        .build();
    let service = jobs.layer().layer(inner(async |_| {
        let _handle = JobHandle::current();
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    jobs.cancel(accepted.id()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(jobs.unfinished(), 1);
    let started = tokio::time::Instant::now();
    assert_eq!(jobs.drain(Duration::from_secs(10)).await, 1);
    assert_eq!(started.elapsed().as_secs(), 10);
}
