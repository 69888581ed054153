//! Notifies the inner service when its work is no longer needed, and of its job.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http::Response;
use http_body_util::BodyExt;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinSet, spawn_blocking, yield_now},
    time::sleep,
};
use tower::{Layer, ServiceExt};
use tower_accepted::{AcceptedLayer, JobHandle, Jobs, When};

use crate::support::*;

/// Hands one value from an inner service to its test.
#[derive(Clone)]
struct Outbox<T>(Arc<Mutex<Option<oneshot::Sender<T>>>>);

impl<T> Outbox<T> {
    fn new() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    fn send(&self, value: T) {
        let sender = self.0.lock().unwrap().take().expect("one call");
        assert!(sender.send(value).is_ok(), "the test waits");
    }
}

#[tokio::test(start_paused = true)]
async fn ended_jobs_leave_no_waiting_task() {
    const JOBS: usize = 500;
    let ended_tasks = Counter::default();
    let jobs = Jobs::builder().max_unfinished(JOBS).build();
    let counter = ended_tasks.clone();
    let service = jobs.layer().layer(inner(move |_| {
        let guard = OnDrop(counter.clone());
        async {
            let job = JobHandle::current();
            tokio::spawn(async move {
                job.canceled().await;
                drop(guard);
            });
            sleep(Duration::from_secs(1)).await;
            ok("")
        }
    }));
    let first = send(&service, post("/")).await;
    ended(&service, &first).await;
    // The store has its own task by now.
    let before = Handle::current().metrics().num_alive_tasks();
    let mut accepted = Vec::new();
    for _ in 0..JOBS {
        accepted.push(send(&service, post("/")).await);
    }
    sleep(Duration::from_millis(500)).await;
    let during = Handle::current().metrics().num_alive_tasks();
    assert_eq!(during, before + 2 * JOBS);
    for accepted in &accepted {
        assert_eq!(ended(&service, accepted).await["status"], "succeeded");
    }
    assert_eq!(ended_tasks.count(), JOBS + 1);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn handle_is_canceled_however_the_job_ends() {
    for end in ["cancel", "delete", "timeout", "drain", "panic", "error"] {
        let (outbox, handle) = Outbox::new();
        let jobs = Jobs::builder()
            .job_timeout(Duration::from_secs(60))
            .cancel_grace(Duration::from_secs(5))
            .build();
        let service = jobs.layer().layer(inner(move |_| {
            let outbox = outbox.clone();
            async move {
                outbox.send(JobHandle::current());
                sleep(Duration::from_secs(1)).await;
                match end {
                    "panic" => panic!("on purpose"),
                    "error" => Err(Failed),
                    _ => pending::<Result<Response<Body>, Failed>>().await,
                }
            }
        }));
        let accepted = send(&service, post("/")).await;
        let job = handle.await.unwrap();
        assert!(!job.is_canceled(), "{end}");
        let path = accepted.location();
        match end {
            "cancel" => drop(send(&service, post(&format!("{path}/cancel"))).await),
            "delete" => drop(send(&service, request("DELETE", path)).await),
            "drain" => assert_eq!(jobs.drain(Duration::from_millis(500)).await, 1),
            _ => {}
        }
        job.canceled().await;
        assert!(job.is_canceled() && job.token().is_cancelled(), "{end}");
    }
}

#[tokio::test]
async fn dropped_inline_call_cancels_its_blocking_work() {
    let (outbox, started) = Outbox::new();
    let (stopped, is_stopped) = Outbox::new();
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(3600)))
        .layer(inner(move |_| {
            let (outbox, stopped) = (outbox.clone(), stopped.clone());
            async move {
                let job = JobHandle::current();
                spawn_blocking(move || {
                    outbox.send(());
                    while !job.is_canceled() {
                        std::thread::yield_now();
                    }
                    stopped.send(job);
                })
                .await
                .unwrap();
                ok("")
            }
        }));
    let client = tokio::spawn(service.oneshot(post("/")));
    started.await.unwrap();
    client.abort();
    let job = is_stopped.await.unwrap();
    assert_eq!((job.id(), job.accepted().await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn inline_response_is_needed_until_its_body_ends() {
    let (outbox, handle) = Outbox::new();
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(1)))
        .layer(inner(move |_| {
            outbox.send(JobHandle::current());
            let frames = stream::iter(0..3).then(|_| async {
                sleep(Duration::from_secs(1)).await;
                Ok::<_, Failed>("frame ")
            });
            let body = Body::from_stream(frames);
            async { Ok(Response::new(body)) }
        }));
    let mut response = service.oneshot(post("/")).await.unwrap();
    let job = handle.await.unwrap();
    // Decided already, while the work goes on.
    assert_eq!(job.accepted().await, None);
    assert!(!job.is_canceled());
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "frame ");
    assert!(!job.is_canceled());
    drop(response);
    assert!(job.is_canceled());
}

#[tokio::test(start_paused = true)]
async fn answered_call_without_a_body_cancels_its_handle() {
    let (outbox, handle) = Outbox::new();
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(1)))
        .layer(inner(move |_| {
            outbox.send(JobHandle::current());
            async { ok("the report") }
        }));
    assert_eq!(send(&service, post("/")).await.text(), "the report");
    assert!(handle.await.unwrap().is_canceled());
}

#[tokio::test(start_paused = true)]
async fn call_with_only_a_token_has_its_grace_period() {
    let cleaned_up = Counter::default();
    let counter = cleaned_up.clone();
    let service = AcceptedLayer::new().layer(inner(move |_| {
        let counter = counter.clone();
        async move {
            let token = JobHandle::current().token();
            token.cancelled().await;
            sleep(Duration::from_secs(1)).await;
            counter.up();
            ok("")
        }
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    send(&service, post(&format!("{}/cancel", accepted.location()))).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(cleaned_up.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn call_that_dropped_its_handle_has_no_grace_period() {
    let (dropped, jobs) = (Counter::default(), Jobs::new());
    let counter = dropped.clone();
    let service = jobs.layer().layer(inner(move |_| {
        let guard = OnDrop(counter.clone());
        async move {
            let _guard = guard;
            JobHandle::current().progress(0.5);
            pending::<Result<Response<Body>, Failed>>().await
        }
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_millis(100)).await;
    send(&service, post(&format!("{}/cancel", accepted.location()))).await;
    yield_now().await;
    assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn accepted_completes_when_the_call_becomes_a_job() {
    let (outbox, id) = Outbox::new();
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(1)))
        .layer(inner(move |_| {
            let (job, outbox) = (JobHandle::current(), outbox.clone());
            tokio::spawn(async move { outbox.send(job.accepted().await) });
            async {
                sleep(Duration::from_secs(60)).await;
                ok("")
            }
        }));
    let accepted = send(&service, post("/")).await;
    assert_eq!(id.await.unwrap(), Some(accepted.id()));
}

#[tokio::test(start_paused = true)]
async fn request_that_passes_through_is_not_accepted() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        assert_eq!(JobHandle::current().accepted().await, None);
        ok("passed through")
    }));
    assert_eq!(send(&service, get("/")).await.text(), "passed through");
}

#[tokio::test(start_paused = true)]
async fn spawned_tasks_keep_their_handle_in_its_scope() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        let job = JobHandle::current();
        let mut pages = JoinSet::new();
        for page in 1..=4 {
            pages.spawn(job.scope(async move {
                sleep(Duration::from_secs(page)).await;
                JobHandle::current().progress(page as f64 / 5.0);
            }));
        }
        while pages.join_next().await.is_some() {}
        assert_eq!(JobHandle::current().id(), job.id());
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(5)).await;
    let document = send(&service, get(accepted.location())).await.json();
    assert_eq!(document["percentComplete"], 80);
}

#[tokio::test(start_paused = true)]
async fn call_beyond_a_limit_learns_that_its_client_left() {
    let (left, noticed) = Outbox::new();
    let jobs = Jobs::builder().max_unfinished(0).build();
    let after = When::After(Duration::from_secs(1));
    let service = jobs.layer().when(after).layer(inner(move |_| {
        let left = left.clone();
        async move {
            let job = JobHandle::current();
            tokio::spawn(async move {
                job.canceled().await;
                left.send(());
            });
            pending::<()>().await;
            ok("")
        }
    }));
    let call = tokio::spawn(async move { send(&service, post("/")).await });
    sleep(Duration::from_secs(5)).await;
    call.abort();
    noticed.await.expect("the handle is canceled");
}
