//! Requests of dead and leaving workers: they run again, are lost, or return to the queue.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;
use tower_accepted::{
    JobId, RequestBody,
    store::nats::{NatsOptions, Rerun},
};

use crate::{
    site::{
        Deployment, assert_end, counting, front, hanging, keyed, options, or_skip, outcome,
        soon_accepted, until, wait_for_end, waiting, work,
    },
    streams::{Acks, claim_second, pull, read_record, run_subject, write_record},
    support::{Body, Counter, get, inner, ok, post, request, send},
};

/// A lease that no test outlasts.
const ENDLESS_LEASE: Duration = Duration::from_secs(600);

/// Sends a request whose first worker dies during the call.
///
/// Returns how the job ends, and how often it was started.
async fn abandon(nats: &Deployment, request: Request<Body>) -> (String, usize) {
    let site = nats.front().await;
    let [first, second] = [nats.jobs().await, nats.jobs().await];
    let calls = Counter::default();
    let working = work(&first, hanging(&calls));
    let accepted = send(&site, request).await;
    until(async || calls.count() == 1).await;
    working.abort();
    work(&second, counting(&calls, "again"));
    let end = wait_for_end(&site, accepted.location()).await;
    (outcome(&end.json()), calls.count())
}

fn succeeded_in_two_calls() -> (String, usize) {
    ("succeeded".to_owned(), 2)
}

fn lost_after_one_call() -> (String, usize) {
    ("lost".to_owned(), 1)
}

#[tokio::test]
async fn idempotent_request_is_run_again() {
    let nats = or_skip!(Deployment::start(options()));
    let end = abandon(&nats, request("PUT", "/it")).await;
    assert_eq!(end, succeeded_in_two_calls());
}

#[tokio::test]
async fn request_with_a_key_is_run_again() {
    let nats = or_skip!(Deployment::start(options()));
    let end = abandon(&nats, keyed()).await;
    assert_eq!(end, succeeded_in_two_calls());
}

#[tokio::test]
async fn other_request_is_lost() {
    let nats = or_skip!(Deployment::start(options()));
    let end = abandon(&nats, post("/it")).await;
    assert_eq!(end, lost_after_one_call());
}

/// A cluster needs longer than this lease to confirm the loss.
#[tokio::test]
async fn request_is_lost_on_a_cluster_with_a_short_lease() {
    let nats = or_skip!(Deployment::cluster(options()));
    let end = abandon(&nats, post("/it")).await;
    assert_eq!(end, lost_after_one_call());
}

/// A renewal, which keeps a record from expiring, is no heartbeat.
#[tokio::test]
async fn worker_is_gone_though_its_record_is_renewed() {
    let second = Duration::from_secs(1);
    let short = options().lease(3 * second).retain(2 * second);
    let nats = or_skip!(Deployment::start(short));
    let end = abandon(&nats, request("PUT", "/it")).await;
    assert_eq!(end, succeeded_in_two_calls());
}

#[tokio::test]
async fn rerun_option_decides_for_all_requests() {
    let always = or_skip!(Deployment::start(options().rerun(Rerun::Always)));
    let never = or_skip!(Deployment::start(options().rerun(Rerun::Never)));
    let ends = tokio::join!(
        abandon(&always, post("/it")),
        abandon(&never, request("PUT", "/it")),
    );
    assert_eq!(ends, (succeeded_in_two_calls(), lost_after_one_call()));
}

#[tokio::test]
async fn request_that_kills_every_worker_is_lost() {
    let nats = or_skip!(Deployment::start(options().attempts(3)));
    let site = nats.front().await;
    let accepted = send(&site, request("PUT", "/poison")).await;
    let calls = Counter::default();
    for attempt in 1..=3 {
        let worker = nats.jobs().await;
        let working = work(&worker, hanging(&calls));
        until(async || calls.count() == attempt).await;
        working.abort();
    }
    nats.worker(counting(&calls, "a fourth time")).await;
    let end = wait_for_end(&site, accepted.location()).await.json();
    assert_eq!(
        (&end["status"], &end["error"]["code"]),
        (&"failed".into(), &"lost".into())
    );
    assert_eq!(calls.count(), 3);
    let result = send(&site, get(&format!("{}/result", accepted.location()))).await;
    assert_eq!(result.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn drain_hands_back_what_may_run_again() {
    let nats = or_skip!(Deployment::start(options().lease(ENDLESS_LEASE)));
    let [first, second] = [nats.jobs().await, nats.jobs().await];
    let site = nats.front().await;
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    let service = {
        let (calls, go) = (calls.clone(), go.clone());
        inner(move |request: Request<RequestBody<Body>>| {
            calls.up();
            let (is_quick, go) = (request.uri().path() == "/quick", go.clone());
            async move {
                if is_quick {
                    go.notified().await;
                } else {
                    std::future::pending().await
                }
                ok("first")
            }
        })
    };
    let working = work(&first, service);
    let put = send(&site, request("PUT", "/it")).await;
    let posted = send(&site, post("/it")).await;
    let quick = send(&site, post("/quick")).await;
    until(async || calls.count() == 3).await;
    let waiting = send(&site, post("/waiting")).await;
    let draining = tokio::spawn(async move { first.drain(Duration::from_millis(500)).await });
    go.notify_one();
    // The drain cuts both hanging calls, and the last request if that had started.
    let cut = draining.await.unwrap();
    assert!((2..=3).contains(&cut), "{cut}");
    working.await.unwrap();
    work(&second, counting(&Counter::default(), "second"));
    let text = async |location: &str| {
        let end = wait_for_end(&site, location).await.json();
        let result = send(&site, get(&format!("{location}/result"))).await;
        let code = end["error"]["code"].as_str().map(str::to_owned);
        code.unwrap_or_else(|| result.text().to_owned())
    };
    assert_eq!(text(put.location()).await, "second");
    assert_eq!(text(posted.location()).await, "shutdown");
    assert_eq!(text(quick.location()).await, "first");
    let waited = text(waiting.location()).await;
    assert!(waited == "second" || waited == "shutdown", "{waited}");
}

/// Waits until a worker has delayed an inline job's request twice: its process renewed the claim.
async fn delayed_twice(acks: &mut Acks) {
    acks.delay().await;
    acks.delay().await;
}

#[tokio::test]
async fn inline_call_survives_delivery_to_its_own_worker() {
    let nats = or_skip!(Deployment::start(options()));
    let both = nats.jobs().await;
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    let service = waiting(&calls, &go, "done");
    let mut acks = Acks::subscribe(&nats.servers).await;
    work(&both, service.clone());
    let site = soon_accepted(&both, service);
    let accepted = send(&site, post("/it")).await;
    delayed_twice(&mut acks).await;
    go.notify_one();
    assert_end(&site, accepted.location(), "succeeded").await;
    assert_eq!(calls.count(), 1);
}

/// Sends a request to a process that runs it inline, and dies.
///
/// Returns how the job ends, and how often it was started.
async fn abandon_inline(nats: &Deployment, request: Request<Body>) -> (String, usize) {
    let calls = Counter::default();
    let (doomed, accepted) = nats.accept_inline(&calls, request).await;
    let other = nats.jobs().await;
    let site = front(&other);
    let mut acks = Acks::subscribe(&nats.servers).await;
    work(&other, counting(&calls, "again"));
    delayed_twice(&mut acks).await;
    let running = send(&site, get(accepted.location())).await.json();
    assert_eq!(running["status"], "running");
    assert_eq!(calls.count(), 1);
    doomed.shutdown_background();
    let end = wait_for_end(&site, accepted.location()).await;
    (outcome(&end.json()), calls.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_call_of_a_dead_process_is_run_again() {
    let nats = or_skip!(Deployment::start(options()));
    let end = abandon_inline(&nats, request("PUT", "/it")).await;
    assert_eq!(end, succeeded_in_two_calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_call_that_must_not_repeat_is_lost() {
    let nats = or_skip!(Deployment::start(options()));
    let end = abandon_inline(&nats, post("/it")).await;
    assert_eq!(end, lost_after_one_call());
}

/// A job that was started once, and handed back.
struct HandedBack {
    nats: Deployment,
    location: String,
    id: JobId,
    /// The run record that the hand-back wrote.
    record: Value,
}

impl HandedBack {
    async fn start(options: NatsOptions) -> Option<Self> {
        let nats = Deployment::start(options).await?;
        let site = nats.front().await;
        let first = nats.jobs().await;
        let calls = Counter::default();
        let working = work(&first, hanging(&calls));
        let accepted = send(&site, request("PUT", "/it")).await;
        until(async || calls.count() == 1).await;
        first.drain(Duration::ZERO).await;
        working.await.unwrap();
        let record = read_record(&nats.servers, &run_subject(accepted.id())).await;
        let (attempts, holder) = (&record["attempts"], &record["holder"]);
        assert_eq!((attempts, holder), (&1.into(), &Value::Null));
        Some(Self {
            location: accepted.location().to_owned(),
            id: accepted.id(),
            nats,
            record,
        })
    }

    /// Waits until the run record has the second attempt.
    async fn second_attempt_recorded(&self) {
        let subject = run_subject(self.id);
        let read = async || read_record(&self.nats.servers, &subject).await;
        until(async || read().await["attempts"] == 2).await;
    }
}

#[tokio::test]
async fn handed_back_attempt_does_not_count() {
    let job = or_skip!(HandedBack::start(options().attempts(2)));
    let second = job.nats.jobs().await;
    let calls = Counter::default();
    let working = work(&second, hanging(&calls));
    until(async || calls.count() == 1).await;
    working.abort();
    let third = job.nats.jobs().await;
    work(&third, counting(&Counter::default(), "third"));
    assert_end(&front(&third), &job.location, "succeeded").await;
}

#[tokio::test]
async fn second_claim_counts_before_the_run_record() {
    let job = or_skip!(HandedBack::start(options().attempts(1)));
    // As if the worker had been killed between the two writes.
    claim_second(&job.nats.servers, job.id, job.record).await;
    let calls = Counter::default();
    let last = job.nats.jobs().await;
    work(&last, counting(&calls, "a third time"));
    assert_end(&front(&last), &job.location, "lost").await;
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn late_write_of_an_older_claim_does_not_end_a_job() {
    let job = or_skip!(HandedBack::start(options()));
    let second = job.nats.jobs().await;
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    work(&second, waiting(&calls, &go, "second"));
    until(async || calls.count() == 1).await;
    job.second_attempt_recorded().await;
    write_record(&job.nats.servers, run_subject(job.id), &job.record).await;
    // The second worker restores its record.
    job.second_attempt_recorded().await;
    go.notify_one();
    assert_end(&front(&second), &job.location, "succeeded").await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn second_claim_outlasts_the_retention_in_the_queue() {
    let options = options().retain(Duration::from_secs(2));
    let job = or_skip!(HandedBack::start(options));
    claim_second(&job.nats.servers, job.id, job.record.clone()).await;
    // There is no worker: any process renews the run record, and writes the claim into it.
    let _web = job.nats.jobs().await;
    job.second_attempt_recorded().await;
}

#[tokio::test]
async fn outdated_holder_does_not_requeue_the_request() {
    let nats = or_skip!(Deployment::start(options().lease(ENDLESS_LEASE)));
    let site = nats.front().await;
    let worker = nats.jobs().await;
    let calls = Counter::default();
    let working = work(&worker, hanging(&calls));
    let accepted = send(&site, request("PUT", "/it")).await;
    until(async || calls.count() == 1).await;
    let record = read_record(&nats.servers, &run_subject(accepted.id())).await;
    claim_second(&nats.servers, accepted.id(), record).await;
    worker.drain(Duration::ZERO).await;
    working.await.unwrap();
    assert!(pull(&nats.servers).await.is_none());
}
