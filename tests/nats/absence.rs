//! Absence: jobs whose process, or every process, was away for longer than records are kept.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use tokio::{sync::Notify, time::sleep};
use tower_accepted::{Jobs, RequestBody};

use crate::{
    site::{
        Deployment, assert_end, counting, front, hanging, options, or_skip, until, waiting, work,
    },
    streams::{BUCKET, deliver_unclaimed, messages, outlast_retention, stream},
    support::{Body, Counter, Failed, get, inner, ok, post, request, send},
};

/// Waits until every record has expired. Only requests in the queue are left.
async fn records_expired(nats: &Deployment) {
    let bucket = stream(&nats.servers, BUCKET).await;
    until(async || messages(&bucket).await.is_empty()).await;
}

#[tokio::test]
async fn unclaimed_request_runs_however_old_it_is() {
    // Some process must renew records each quarter of the retention, even on a slow machine.
    let nats = or_skip!(Deployment::start(options().retain(Duration::from_secs(4))));
    let site = nats.front().await;
    let worker = nats.jobs().await;
    let accepted = send(&site, post("/it")).await;
    outlast_retention(&nats.servers).await;
    deliver_unclaimed(&nats.servers).await;
    let calls = Counter::default();
    work(&worker, counting(&calls, "done"));
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn started_job_is_lost_after_a_long_absence_of_all() {
    // A dead worker's pull waits at the server for 2 s: a delivery to it would not count.
    let options = options()
        .retain(Duration::from_secs(2))
        .lease(Duration::from_secs(3));
    let nats = or_skip!(Deployment::start(options));
    let calls = Counter::default();
    let accepted = {
        let (site, worker) = (nats.front().await, nats.jobs().await);
        let accepted = send(&site, post("/it")).await;
        let working = work(&worker, hanging(&calls));
        until(async || calls.count() == 1).await;
        working.abort();
        accepted
    };
    records_expired(&nats).await;
    let last = nats.jobs().await;
    work(&last, counting(&calls, "again"));
    assert_end(&front(&last), accepted.location(), "lost").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn inline_job_is_lost_after_a_long_absence_of_all() {
    let nats = or_skip!(Deployment::start(options().retain(Duration::from_secs(2))));
    let (doomed, accepted) = nats.accept_inline(&Counter::default(), post("/it")).await;
    doomed.shutdown_background();
    records_expired(&nats).await;
    let last = nats.jobs().await;
    let calls = Counter::default();
    work(&last, counting(&calls, "again"));
    assert_end(&front(&last), accepted.location(), "lost").await;
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn any_process_keeps_the_record_of_a_started_job() {
    let nats = or_skip!(Deployment::start(options().retain(Duration::from_secs(3))));
    let site = nats.front().await;
    let calls = Counter::default();
    let accepted = send(&site, post("/it")).await;
    {
        let worker = nats.jobs().await;
        let working = work(&worker, hanging(&calls));
        until(async || calls.count() == 1).await;
        working.abort();
    }
    outlast_retention(&nats.servers).await;
    let running = send(&site, get(accepted.location())).await;
    assert_eq!(running.json()["status"], "running", "{running:?}");
    let repeated = Counter::default();
    nats.worker(counting(&repeated, "again")).await;
    assert_end(&site, accepted.location(), "lost").await;
    assert_eq!((calls.count(), repeated.count()), (1, 0));
}

#[tokio::test]
async fn process_back_after_expiry_does_not_end_the_job() {
    let options = options().retain(Duration::from_secs(2));
    let nats = or_skip!(Deployment::start(options));
    let (wire, first) = nats.jobs_behind_wire(nats.options.clone()).await;
    let second = nats.jobs().await;
    let site = front(&second);
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    // At its concurrency limit, the worker has no pull that the cut would leave unanswered.
    let worker = first.worker::<_, Body>(waiting(&calls, &go, "first"));
    let working = tokio::spawn(worker.concurrency(1).run());
    let accepted = send(&site, request("PUT", "/it")).await;
    until(async || calls.count() == 1).await;
    wire.cut(true);
    let others = Counter::default();
    work(&second, counting(&others, "second"));
    assert_end(&site, accepted.location(), "succeeded").await;
    let status = async || send(&site, get(accepted.location())).await.status;
    until(async || status().await == StatusCode::NOT_FOUND).await;
    wire.cut(false);
    go.notify_one();
    first.drain(Duration::from_secs(60)).await;
    working.await.unwrap();
    assert_eq!(status().await, StatusCode::NOT_FOUND);
    assert_eq!((calls.count(), others.count()), (1, 1));
}

#[tokio::test]
async fn job_timeout_starts_with_the_claim() {
    const JOB_TIMEOUT: Duration = Duration::from_secs(1);
    let builder = Jobs::builder().job_timeout(JOB_TIMEOUT);
    let nats = or_skip!(Deployment::start(options())).with_builder(builder);
    let site = nats.front().await;
    let quick = send(&site, post("/quick")).await;
    let hanging = send(&site, post("/hanging")).await;
    // Both have waited in the queue for longer than they may run.
    sleep(JOB_TIMEOUT).await;
    let service = inner(async |request: Request<RequestBody<Body>>| {
        if request.uri().path() == "/quick" {
            ok("done")
        } else {
            std::future::pending::<Result<_, Failed>>().await
        }
    });
    nats.worker(service).await;
    assert_end(&site, quick.location(), "succeeded").await;
    assert_end(&site, hanging.location(), "timeout").await;
}
