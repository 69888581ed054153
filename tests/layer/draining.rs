use std::{future::pending, time::Duration};

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{JobHandle, Jobs, When};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_drain_lets_jobs_end_and_accepts_no_more() {
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
    // The monitor answers all the while.
    let looked = send(&service, get(accepted.location())).await;
    assert_eq!(looked.json()["status"], "running");
    assert_eq!(drain.await.unwrap(), 0);
    assert_eq!(result(&service, &accepted).await.text(), "done");
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_a_drain_ends_as_shutdown() {
    let (dropped, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().layer(inner({
        let dropped = dropped.clone();
        move |_| {
            let guard = OnDrop(dropped.clone());
            async move {
                // A call that listens has no grace beyond the drain's own time.
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
async fn a_drain_waits_for_a_canceled_call_that_still_runs() {
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
async fn while_draining_a_call_that_need_not_be_a_job_is_answered_inline() {
    let jobs = Jobs::new();
    let slow = inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("inline")
    });
    let service = jobs
        .layer()
        .when(When::After(Duration::from_secs(2)))
        .layer(slow);
    // One has begun before the drain, one comes after.
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
async fn a_drain_is_not_held_by_what_is_no_job() {
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
    let begun = tokio::time::Instant::now();
    assert_eq!(jobs.drain(Duration::from_secs(10)).await, 2);
    assert!(begun.elapsed() < Duration::from_secs(20));
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_over_grants_no_more_grace() {
    let jobs = Jobs::builder()
        .cancel_grace(Duration::from_secs(3600))
        .build();
    let service = jobs.layer().layer(inner(async |_| {
        let _listens = JobHandle::current();
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    jobs.cancel(accepted.id()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(jobs.unfinished(), 1);
    let begun = tokio::time::Instant::now();
    assert_eq!(jobs.drain(Duration::from_secs(10)).await, 1);
    assert_eq!(begun.elapsed().as_secs(), 10);
}
