//! Waits for a change or the end of a job.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use http::{Response, StatusCode};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tower::Layer;
use tower_accepted::{AcceptedLayer, JobHandle, Jobs};

use crate::support::*;

fn waiting(path: &str, seconds: u64) -> http::Request<Body> {
    with(get(path), &[("prefer", &format!("wait={seconds}"))])
}

#[tokio::test(start_paused = true)]
async fn wait_is_held_until_the_job_ends() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        JobHandle::current().progress(0.5);
        sleep(Duration::from_secs(10)).await;
        ok("the result")
    }));
    let started = Instant::now();
    let accepted = send(&service, post("/")).await;
    let status = send(&service, waiting(accepted.location(), 30)).await;
    assert_eq!(status.json()["status"], "succeeded");
    assert_eq!(status.header("preference-applied"), Some("wait=30"));
    assert_eq!(started.elapsed().as_secs(), 10);

    let started = Instant::now();
    let accepted = send(&service, post("/")).await;
    let path = format!("{}/result", accepted.location());
    let result = send(&service, waiting(&path, 30)).await;
    assert_eq!(
        (result.status, result.text()),
        (StatusCode::OK, "the result")
    );
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn wait_ends_with_its_time_or_the_limit() {
    let jobs = Jobs::builder().max_wait(Duration::from_secs(20)).build();
    let service = jobs.layer().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    for (prefer, held) in [(5, 5), (3600, 20), (0, 0)] {
        let started = Instant::now();
        let answer = send(&service, waiting(accepted.location(), prefer)).await;
        assert_eq!(
            (answer.status, started.elapsed().as_secs()),
            (StatusCode::OK, held)
        );
        assert_eq!(answer.json()["status"], "running");
        let applied = format!("wait={held}");
        assert_eq!(answer.header("preference-applied"), Some(&*applied));
    }
    let path = format!("{}/result", accepted.location());
    let answer = send(&service, waiting(&path, 5)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn conditional_wait_ends_with_one_change() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        for step in 1..=4 {
            sleep(Duration::from_secs(10)).await;
            JobHandle::current().progress(f64::from(step) / 4.0);
        }
        sleep(Duration::from_secs(10)).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    let mut percents = Vec::new();
    let mut etag = String::from("\"none\"");
    loop {
        let request = with(
            waiting(accepted.location(), 60),
            &[("if-none-match", &etag)],
        );
        let answer = send(&service, request).await;
        assert_eq!(answer.status, StatusCode::OK);
        etag = answer.header("etag").unwrap().to_owned();
        let document = answer.json();
        percents.extend(document["percentComplete"].as_u64());
        if document["status"] == "succeeded" {
            break;
        }
    }
    assert_eq!(percents, [25, 50, 75, 100, 100]);
    // An ended job does not change, so the response comes at once.
    let started = Instant::now();
    let request = with(
        waiting(accepted.location(), 60),
        &[("if-none-match", &etag)],
    );
    assert_eq!(
        send(&service, request).await.status,
        StatusCode::NOT_MODIFIED
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn conditional_wait_without_a_change_returns_304() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let status = send(&service, get(accepted.location())).await;
    let etag = [("if-none-match", status.header("etag").unwrap())];
    let answer = send(&service, with(waiting(accepted.location(), 5), &etag)).await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn cancel_or_delete_ends_a_wait() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    for (method, suffix) in [("POST", "/cancel"), ("DELETE", "")] {
        let accepted = send(&service, post("/")).await;
        let path = accepted.location().to_owned();
        let waiter = tokio::spawn({
            let (service, path) = (service.clone(), path.clone());
            async move { send(&service, waiting(&path, 60)).await }
        });
        sleep(Duration::from_secs(1)).await;
        send(&service, request(method, &format!("{path}{suffix}"))).await;
        let started = Instant::now();
        assert_eq!(waiter.await.unwrap().json()["status"], "canceled");
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}

/// Polls each future once, and returns the number of ready ones.
async fn count_ready<F: Future>(futures: &mut [std::pin::Pin<Box<F>>]) -> usize {
    poll_fn(|cx| {
        let polled = futures.iter_mut().map(|future| future.as_mut().poll(cx));
        Poll::Ready(polled.filter(Poll::is_ready).count())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn job_wakes_ten_thousand_waiters_in_one_pass() {
    let (end, ended) = watch::channel(());
    let service = AcceptedLayer::new().layer(inner(move |_| {
        let mut ended = ended.clone();
        async move {
            ended.changed().await.unwrap();
            ok("")
        }
    }));
    let accepted = send(&service, post("/")).await;
    let answered = Counter::default();
    let waiters: Vec<_> = (0..10_000)
        .map(|_| {
            let request = waiting(accepted.location(), 60);
            let (service, answered) = (service.clone(), answered.clone());
            tokio::spawn(async move {
                let answer = send(&service, request).await;
                assert_eq!(answer.json()["status"], "succeeded");
                answered.up();
            })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    end.send(()).unwrap();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    // The paused clock did not advance, so no waiter polled.
    assert_eq!(
        (answered.count(), started.elapsed()),
        (10_000, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn each_of_ten_thousand_jobs_wakes_its_waiter() {
    let (end, ended) = watch::channel(());
    let service = AcceptedLayer::new().layer(inner(move |request| {
        let mut ended = ended.clone();
        async move {
            match request.uri().path() {
                "/first" => ended.changed().await.unwrap(),
                _ => pending().await,
            }
            ok("")
        }
    }));
    let mut waiters = Vec::new();
    for path in std::iter::once("/first").chain(std::iter::repeat_n("/other", 9_999)) {
        let accepted = send(&service, post(path)).await;
        let request = waiting(accepted.location(), 60);
        waiters.push(Box::pin({
            let service = service.clone();
            async move { send(&service, request).await }
        }));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count_ready(&mut waiters).await, 0);
    end.send(()).unwrap();
    let first = waiters.remove(0);
    assert_eq!(first.await.json()["status"], "succeeded");
    assert_eq!(count_ready(&mut waiters).await, 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_wait_leaves_nothing_behind() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        JobHandle::current().canceled().await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    for _ in 0..1_000 {
        let mut waiter = pin!(send(&service, waiting(accepted.location(), 60)));
        let polled = poll_fn(|cx| Poll::Ready(waiter.as_mut().poll(cx).is_ready())).await;
        assert!(!polled);
    }
    let cancel = format!("{}/cancel", accepted.location());
    assert_eq!(send(&service, post(&cancel)).await.status, StatusCode::OK);
}

/// A proxy in front gives up after 60 s by default.
#[tokio::test(start_paused = true)]
async fn wait_is_at_most_50_s_by_default() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    let started = Instant::now();
    send(&service, waiting(accepted.location(), 3600)).await;
    assert_eq!(started.elapsed().as_secs(), 50);
}
