//! Cancels, times out and deletes jobs.

use std::{future::pending, time::Duration};

use http::{Response, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{JobHandle, Jobs};

use crate::support::*;

fn cancel(accepted: &Answer) -> http::Request<Body> {
    post(&format!("{}/cancel", accepted.location()))
}

fn delete(accepted: &Answer) -> http::Request<Body> {
    request("DELETE", accepted.location())
}

/// Creates a service whose calls never end. It counts calls as they start and as they are dropped.
fn hanging(started: &Counter, dropped: &Counter) -> impl Inner {
    let (started, dropped) = (started.clone(), dropped.clone());
    inner(move |_| {
        started.up();
        let guard = OnDrop(dropped.clone());
        async move {
            let _guard = guard;
            pending().await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn canceled_job_drops_its_running_call() {
    let (started, dropped, jobs) = (Counter::default(), Counter::default(), Jobs::new());
    let service = jobs.layer().layer(hanging(&started, &dropped));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((started.count(), dropped.count()), (1, 0));

    let canceled = send(&service, cancel(&accepted)).await;
    assert_eq!(canceled.status, StatusCode::OK);
    assert_eq!(canceled.json()["status"], "canceled");
    assert_eq!(canceled.json()["error"]["code"], "canceled");
    // A second cancel has no effect.
    let again = send(&service, cancel(&accepted)).await;
    assert_eq!(
        (again.status, again.json()),
        (StatusCode::OK, canceled.json())
    );

    sleep(Duration::from_millis(1)).await;
    assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
    let result = result(&service, &accepted).await;
    assert_eq!(result.status, StatusCode::CONFLICT);
    assert_eq!(result.header("asyncresult"), None);
}

#[tokio::test(start_paused = true)]
async fn canceled_job_in_the_queue_is_never_called() {
    let (started, dropped, jobs) = (Counter::default(), Counter::default(), Jobs::new());
    let service = ServiceBuilder::new()
        .layer(jobs.layer())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(hanging(&started, &dropped));
    let first = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let second = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let status = async |accepted: &Answer| {
        let document = send(&service, get(accepted.location())).await.json();
        document["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(&first).await, "running");
    assert_eq!(status(&second).await, "queued");
    send(&service, cancel(&second)).await;
    send(&service, cancel(&first)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(status(&second).await, "canceled");
    assert_eq!((started.count(), jobs.unfinished()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn call_with_a_handle_has_a_grace_period() {
    let (cleaned, jobs) = (Counter::default(), Jobs::new());
    let service = jobs.layer().layer(inner({
        let cleaned = cleaned.clone();
        move |_| {
            let cleaned = cleaned.clone();
            async move {
                JobHandle::current().canceled().await;
                sleep(Duration::from_secs(4)).await;
                cleaned.up();
                ok("too late")
            }
        }
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    send(&service, cancel(&accepted)).await;
    // The job has ended, but its call still counts as unfinished.
    assert_eq!(ended(&service, &accepted).await["status"], "canceled");
    assert_eq!((jobs.unfinished(), cleaned.count()), (1, 0));
    sleep(Duration::from_secs(5)).await;
    assert_eq!((jobs.unfinished(), cleaned.count()), (0, 1));
    assert_eq!(ended(&service, &accepted).await["status"], "canceled");
}

#[tokio::test(start_paused = true)]
async fn call_is_dropped_after_its_grace_period() {
    let (dropped, jobs) = (Counter::default(), Jobs::builder());
    let jobs = jobs.cancel_grace(Duration::from_secs(2)).build();
    let service = jobs.layer().layer(inner({
        let dropped = dropped.clone();
        move |_| {
            let guard = OnDrop(dropped.clone());
            async move {
                let _all = (guard, JobHandle::current());
                pending::<Result<Response<Body>, Failed>>().await
            }
        }
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let canceled = Instant::now();
    send(&service, cancel(&accepted)).await;
    while jobs.unfinished() > 0 {
        assert_eq!(dropped.count(), 0);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(dropped.count(), 1);
    assert!(canceled.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn timed_out_call_is_notified_like_a_canceled_one() {
    let (notified, jobs) = (Counter::default(), Jobs::builder());
    let jobs = jobs.job_timeout(Duration::from_secs(60)).build();
    let service = jobs.layer().layer(inner({
        let notified = notified.clone();
        move |_| {
            let notified = notified.clone();
            async move {
                JobHandle::current().canceled().await;
                notified.up();
                pending::<Result<Response<Body>, Failed>>().await
            }
        }
    }));
    let accepted = send(&service, post("/")).await;
    assert_eq!(ended(&service, &accepted).await["error"]["code"], "timeout");
    assert_eq!(notified.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn deleted_job_is_canceled_and_not_found() {
    let (started, dropped, jobs) = (Counter::default(), Counter::default(), Jobs::new());
    let service = jobs.layer().layer(hanging(&started, &dropped));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let deleted = send(&service, delete(&accepted)).await;
    assert_eq!(
        (deleted.status, deleted.body.len()),
        (StatusCode::NO_CONTENT, 0)
    );
    sleep(Duration::from_millis(1)).await;
    assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
    for request in [
        get(accepted.location()),
        cancel(&accepted),
        delete(&accepted),
    ] {
        assert_eq!(send(&service, request).await.status, StatusCode::NOT_FOUND);
    }
    assert!(jobs.get(accepted.id()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn ended_job_can_be_deleted_but_not_canceled() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| ok("the result")));
    let accepted = send(&service, post("/")).await;
    let document = ended(&service, &accepted).await;
    let canceled = send(&service, cancel(&accepted)).await;
    assert_eq!(
        (canceled.status, canceled.json()),
        (StatusCode::OK, document)
    );
    assert_eq!(result(&service, &accepted).await.text(), "the result");
    let deleted = send(&service, delete(&accepted)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(
        result(&service, &accepted).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(start_paused = true)]
async fn application_can_cancel_a_job() {
    let (started, dropped, jobs) = (Counter::default(), Counter::default(), Jobs::new());
    let service = jobs.layer().layer(hanging(&started, &dropped));
    let accepted = send(&service, post("/")).await;
    let canceled = jobs.cancel(accepted.id()).await.unwrap().unwrap();
    assert_eq!(canceled.status, tower_accepted::Status::Canceled);
    assert!(
        jobs.cancel(tower_accepted::JobId::random())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn cancel_returns_the_job_without_retention() {
    let jobs = Jobs::builder().retain(Duration::ZERO).build();
    let service = jobs
        .layer()
        .layer(hanging(&Counter::default(), &Counter::default()));
    let accepted = send(&service, post("/")).await;
    let canceled = send(&service, cancel(&accepted)).await;
    assert_eq!(canceled.status, StatusCode::OK);
    assert_eq!(canceled.json()["status"], "canceled");
    // A deleted job is unknown, not expired.
    let accepted = send(&service, post("/")).await;
    send(&service, delete(&accepted)).await;
    let deleted = send(&service, get(accepted.location())).await;
    assert_eq!(deleted.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn cancel_and_delete_obey_their_preconditions() {
    let (started, dropped, jobs) = (Counter::default(), Counter::default(), Jobs::new());
    let service = jobs.layer().layer(hanging(&started, &dropped));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let document = send(&service, get(accepted.location())).await;
    let etag = document.header("etag").unwrap();
    let weak = format!("W/{etag}");
    for fields in [
        [("if-match", "\"99\"")],
        [("if-match", "\"x\"")],
        [("if-match", &weak)],
        [("if-match", "nonsense")],
        [("if-none-match", etag)],
        [("if-none-match", &weak)],
        [("if-none-match", "*")],
    ] {
        for request in [cancel(&accepted), delete(&accepted)] {
            let answer = send(&service, with(request, &fields)).await;
            assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED, "{fields:?}");
        }
    }
    let unchanged = send(&service, get(accepted.location())).await;
    assert_eq!(unchanged.json(), document.json());

    let old = [("if-unmodified-since", "Mon, 23 Nov 2020 13:40:01 GMT")];
    let fields = [("if-match", "\"98\""), ("if-match", etag), old[0]];
    let canceled = send(&service, with(cancel(&accepted), &fields)).await;
    assert_eq!(canceled.status, StatusCode::OK);
    assert_eq!(canceled.json()["status"], "canceled");
    // Whatever has ended the job, its old tag is out of date.
    for request in [cancel(&accepted), delete(&accepted)] {
        let answer = send(&service, with(request, &[("if-match", etag)])).await;
        assert_eq!(answer.status, StatusCode::PRECONDITION_FAILED);
    }
    let fields = [("if-match", "*"), ("if-none-match", etag)];
    let deleted = send(&service, with(delete(&accepted), &fields)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let again = send(&service, with(delete(&accepted), &fields)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn precondition_of_a_cancel_is_decided_by_the_store() {
    let jobs = Jobs::builder().store(crate::slow_store::SlowStore::new());
    let jobs = jobs.build();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(Duration::from_secs(60)).await;
        ok("done")
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let document = send(&service, get(accepted.location())).await;
    let etag = document.header("etag").unwrap();
    // Both look the job up before one of them cancels it.
    let tagged = || with(cancel(&accepted), &[("if-match", etag)]);
    let (one, other) = tokio::join!(send(&service, tagged()), send(&service, tagged()));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
}
