//! What becomes of requests whose process is gone.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use serde_json::Value;
use tokio::{sync::Notify, time::sleep};
use tower::Layer;
use tower_accepted::{
    Jobs, RequestBody, When,
    store::nats::{NatsOptions, Rerun},
};

use crate::{
    server::Servers,
    site::{
        Pair, counting, ended, handed_out, handed_over, hanging, options, process, served, stream,
        until, waiting, work, write,
    },
    support::{Body, Counter, get, inner, ok, post, request, send, with},
};

/// Sends a request whose first worker dies over it, and returns how it ends, and how often it was
/// begun.
async fn abandoned(options: NatsOptions, request: Request<Body>) -> (String, usize) {
    match Servers::one().await {
        Some(servers) => abandoned_on(&servers, options, request).await,
        None => Default::default(),
    }
}

async fn abandoned_on(
    servers: &Servers,
    options: NatsOptions,
    request: Request<Body>,
) -> (String, usize) {
    let [web, first, second] = [
        process(servers, options.clone(), Jobs::builder()).await,
        process(servers, options.clone(), Jobs::builder()).await,
        process(servers, options, Jobs::builder()).await,
    ];
    let site = served(&web);
    let calls = Counter::default();
    let working = work(&first, hanging(&calls));
    let accepted = send(&site, request).await;
    until(async || calls.count() == 1).await;
    working.abort();
    work(&second, counting(&calls, "again"));
    let end = ended(&site, accepted.location()).await.json();
    let code = end["error"]["code"].as_str().map(str::to_owned);
    let status = end["status"].as_str().unwrap().to_owned();
    (code.unwrap_or(status), calls.count())
}

fn is(ended: (String, usize), end: &str, calls: usize) {
    // Nothing where there is no server.
    if ended != <(String, usize)>::default() {
        assert_eq!(ended, (end.to_owned(), calls));
    }
}

#[tokio::test]
async fn an_idempotent_request_is_run_again() {
    is(
        abandoned(options(), request("PUT", "/it")).await,
        "succeeded",
        2,
    );
}

#[tokio::test]
async fn a_request_with_a_key_is_run_again() {
    let keyed = with(post("/it"), &[("idempotency-key", "\"once\"")]);
    is(abandoned(options(), keyed).await, "succeeded", 2);
}

#[tokio::test]
async fn any_other_request_is_lost_and_not_run_again() {
    is(abandoned(options(), post("/it")).await, "lost", 1);
}

/// To be sure of that takes a cluster longer than such a lease.
#[tokio::test]
async fn a_request_is_lost_on_a_cluster_however_short_its_lease() {
    let Some(servers) = Servers::start(3).await else {
        return;
    };
    let replicated = options().replicas(3);
    let ended = abandoned_on(&servers, replicated, post("/it")).await;
    is(ended, "lost", 1);
}

/// What keeps a record from expiring is no sign of life.
#[tokio::test]
async fn a_worker_is_taken_for_gone_also_where_records_are_kept_for_less_than_a_lease() {
    let second = Duration::from_secs(1);
    let short = options().lease(3 * second).retain(2 * second);
    is(
        abandoned(short, request("PUT", "/it")).await,
        "succeeded",
        2,
    );
}

#[tokio::test]
async fn all_or_none_are_run_again_where_that_is_asked_for() {
    let always = options().rerun(Rerun::Always);
    is(abandoned(always, post("/it")).await, "succeeded", 2);
    let never = options().rerun(Rerun::Never);
    is(abandoned(never, request("PUT", "/it")).await, "lost", 1);
}

#[tokio::test]
async fn a_request_that_takes_every_worker_with_it_is_lost_in_the_end() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().attempts(3);
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let site = served(&web);
    let accepted = send(&site, request("PUT", "/poison")).await;
    let calls = Counter::default();
    for attempt in 1..=3 {
        let worker = process(&servers, options.clone(), Jobs::builder()).await;
        let working = work(&worker, hanging(&calls));
        until(async || calls.count() == attempt).await;
        working.abort();
    }
    let last = process(&servers, options, Jobs::builder()).await;
    work(&last, counting(&calls, "a fourth time"));
    let end = ended(&site, accepted.location()).await.json();
    assert_eq!(
        (&end["status"], &end["error"]["code"]),
        (&"failed".into(), &"lost".into())
    );
    assert_eq!(calls.count(), 3);
    let result = send(&site, get(&format!("{}/result", accepted.location()))).await;
    assert_eq!(result.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn what_outlasts_a_drain_is_handed_back_where_it_may_be_run_again() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    // So long that nobody could have waited for the lease to end.
    let options = options().lease(Duration::from_secs(600));
    let [web, first, second] = [
        process(&servers, options.clone(), Jobs::builder()).await,
        process(&servers, options.clone(), Jobs::builder()).await,
        process(&servers, options, Jobs::builder()).await,
    ];
    let site = served(&web);
    let begun = Counter::default();
    let (hanging, go) = (begun.clone(), Arc::new(Notify::new()));
    let going = go.clone();
    let working = work(
        &first,
        inner(move |request: Request<RequestBody<Body>>| {
            hanging.up();
            let (is_quick, going) = (request.uri().path() == "/quick", going.clone());
            async move {
                match is_quick {
                    true => going.notified().await,
                    false => std::future::pending().await,
                }
                ok("first")
            }
        }),
    );
    let put = send(&site, request("PUT", "/it")).await;
    let posted = send(&site, post("/it")).await;
    let quick = send(&site, post("/quick")).await;
    until(async || begun.count() == 3).await;
    let waiting = send(&site, post("/waiting")).await;
    let draining = tokio::spawn(async move { first.drain(Duration::from_millis(500)).await });
    go.notify_one();
    // The one that had not been begun is not the worker's to lose; the others are cut.
    let cut = draining.await.unwrap();
    assert!((2..=3).contains(&cut), "{cut}");
    working.await.unwrap();
    work(&second, counting(&Counter::default(), "second"));
    let text = async |location: &str| {
        let end = ended(&site, location).await.json();
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

#[tokio::test]
async fn a_call_that_was_handed_over_goes_on_where_a_worker_of_its_process_is_handed_its_request() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let both = process(&servers, options(), Jobs::builder()).await;
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    let service = waiting(&calls, &go, "done");
    work(&both, service.clone());
    let when = When::After(Duration::from_millis(50));
    let site = both.layer().when(when).layer(service);
    let accepted = send(&site, post("/it")).await;
    // Some leases long.
    sleep(Duration::from_secs(5)).await;
    go.notify_one();
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

/// Hands a request over under `After` in a process that dies then, and returns how it ends.
async fn handed_over_and_abandoned(request: Request<Body>) -> Option<(String, usize)> {
    let servers = Servers::one().await?;
    let calls = Counter::default();
    let (doomed, accepted) = handed_over(&servers, options(), &calls, request).await;
    let other = process(&servers, options(), Jobs::builder()).await;
    let site = served(&other);
    work(&other, counting(&calls, "again"));
    // It is held for longer than a lease, by signs of life; then it is not.
    sleep(Duration::from_secs(2)).await;
    let running = send(&site, get(accepted.location())).await.json();
    assert_eq!(running["status"], "running");
    assert_eq!(calls.count(), 1);
    doomed.shutdown_background();
    let end = ended(&site, accepted.location()).await.json();
    let code = end["error"]["code"].as_str().map(str::to_owned);
    let status = end["status"].as_str().unwrap().to_owned();
    Some((code.unwrap_or(status), calls.count()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_handed_over_is_run_by_a_worker_when_its_process_is_gone() {
    if let Some(end) = handed_over_and_abandoned(request("PUT", "/it")).await {
        assert_eq!(end, ("succeeded".to_owned(), 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_handed_over_and_must_not_be_repeated_is_lost_with_its_process() {
    if let Some(end) = handed_over_and_abandoned(post("/it")).await {
        assert_eq!(end, ("lost".to_owned(), 1));
    }
}

#[tokio::test]
async fn a_job_that_is_canceled_in_the_queue_is_never_run() {
    let Some(pair) = Pair::start(options()).await else {
        return;
    };
    let canceled = send(&pair.site, post("/canceled")).await;
    let deleted = send(&pair.site, post("/deleted")).await;
    let run = send(&pair.site, post("/run")).await;
    let answer = send(&pair.site, post(&format!("{}/cancel", canceled.location()))).await;
    assert_eq!(answer.json()["status"], "canceled", "{answer:?}");
    send(&pair.site, request("DELETE", deleted.location())).await;
    let calls = Counter::default();
    let begun = calls.clone();
    work(
        &pair.worker,
        inner(move |request: Request<RequestBody<Body>>| {
            begun.up();
            assert_eq!(request.uri().path(), "/run");
            async { ok("done") }
        }),
    );
    ended(&pair.site, run.location()).await;
    assert_eq!(calls.count(), 1);
    let answer = send(&pair.site, get(canceled.location())).await;
    assert_eq!(answer.json()["status"], "canceled");
    assert_eq!(
        send(&pair.site, get(deleted.location())).await.status,
        StatusCode::NOT_FOUND
    );
}

/// A job that was begun, and handed back.
struct Again {
    servers: Servers,
    location: String,
    /// The record of its run as it was handed back: what it is written under, and what.
    handed_back: (String, Value),
}

impl Again {
    async fn start(options: &NatsOptions) -> Option<Self> {
        let servers = Servers::one().await?;
        let web = process(&servers, options.clone(), Jobs::builder()).await;
        let first = process(&servers, options.clone(), Jobs::builder()).await;
        let site = served(&web);
        let begun = Counter::default();
        let working = work(&first, hanging(&begun));
        let accepted = send(&site, request("PUT", "/it")).await;
        until(async || begun.count() == 1).await;
        first.drain(Duration::ZERO).await;
        working.await.unwrap();
        let location = accepted.location().to_owned();
        let (_, id) = location.rsplit_once('/').unwrap();
        let subject = format!("$KV.accepted_jobs.job.run.{id}");
        let record = record(&servers, &subject).await;
        assert_eq!(
            (&record["attempts"], &record["holder"]),
            (&1.into(), &Value::Null)
        );
        Some(Self {
            handed_back: (subject, record),
            servers,
            location,
        })
    }
}

/// Claims a job that this is the record of once more, as a worker that is nowhere.
async fn claim(servers: &Servers, subject: &str, mut record: Value) {
    record["attempts"] = 2.into();
    record["holder"] = serde_json::json!({"claim": 7, "message": 1});
    let subject = subject.replace("job.run", "claim") + ".2";
    write(servers, subject, &record).await;
}

/// What the bucket has under a subject.
async fn record(servers: &Servers, subject: &str) -> Value {
    let bucket = stream(servers, "KV_accepted_jobs").await;
    let entry = bucket.get_last_raw_message_by_subject(subject).await;
    let payload = entry.unwrap().payload;
    let length = u32::from_be_bytes(payload[1..5].try_into().unwrap()) as usize;
    serde_json::from_slice(&payload[5..5 + length]).unwrap()
}

#[tokio::test]
async fn what_was_handed_back_has_taken_nobody_with_it() {
    let options = options().attempts(2);
    let Some(again) = Again::start(&options).await else {
        return;
    };
    let second = process(&again.servers, options.clone(), Jobs::builder()).await;
    let (calls, never) = (Counter::default(), Arc::new(Notify::new()));
    let working = work(&second, waiting(&calls, &never, "never"));
    until(async || calls.count() == 1).await;
    working.abort();
    let third = process(&again.servers, options, Jobs::builder()).await;
    work(&third, counting(&Counter::default(), "third"));
    let site = served(&third);
    let end = ended(&site, &again.location).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
}

#[tokio::test]
async fn a_later_claim_is_one_before_the_jobs_record_tells_of_it() {
    let options = options().attempts(1);
    let Some(again) = Again::start(&options).await else {
        return;
    };
    // As of a worker that was killed between the two.
    let (subject, record) = again.handed_back;
    claim(&again.servers, &subject, record).await;
    let calls = Counter::default();
    let last = process(&again.servers, options, Jobs::builder()).await;
    work(&last, counting(&calls, "a third time"));
    let site = served(&last);
    let end = ended(&site, &again.location).await;
    assert_eq!(end.json()["error"]["code"], "lost", "{end:?}");
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn what_is_written_late_from_before_a_claim_does_not_end_it() {
    let Some(again) = Again::start(&options()).await else {
        return;
    };
    let second = process(&again.servers, options(), Jobs::builder()).await;
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    work(&second, waiting(&calls, &go, "second"));
    until(async || calls.count() == 1).await;
    let (subject, handed_back) = again.handed_back.clone();
    until(async || record(&again.servers, &subject).await["attempts"] == 2).await;
    write(&again.servers, subject.clone(), &handed_back).await;
    // It is put right by who has the job.
    until(async || record(&again.servers, &subject).await["attempts"] == 2).await;
    go.notify_one();
    let site = served(&second);
    let end = ended(&site, &again.location).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn a_later_claim_is_known_for_as_long_as_its_request_waits() {
    let options = options().retain(Duration::from_secs(4));
    let Some(again) = Again::start(&options).await else {
        return;
    };
    let (subject, handed_back) = again.handed_back;
    claim(&again.servers, &subject, handed_back).await;
    // Without a worker: whoever is there keeps the record from expiring, and with it what the claim says.
    let _web = process(&again.servers, options, Jobs::builder()).await;
    until(async || record(&again.servers, &subject).await["attempts"] == 2).await;
}

#[tokio::test]
async fn what_another_has_claimed_since_is_not_handed_out_by_who_was_thought_dead() {
    let Some(pair) = Pair::start(options().lease(Duration::from_secs(600))).await else {
        return;
    };
    let (calls, never) = (Counter::default(), Arc::new(Notify::new()));
    let working = work(&pair.worker, waiting(&calls, &never, "never"));
    let accepted = send(&pair.site, request("PUT", "/it")).await;
    until(async || calls.count() == 1).await;
    let (_, id) = accepted.location().rsplit_once('/').unwrap();
    let subject = format!("$KV.accepted_jobs.job.run.{id}");
    claim(
        &pair.servers,
        &subject,
        record(&pair.servers, &subject).await,
    )
    .await;
    pair.worker.drain(Duration::ZERO).await;
    working.await.unwrap();
    assert!(handed_out(&pair.servers).await.is_none());
}
