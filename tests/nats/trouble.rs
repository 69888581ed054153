//! What goes wrong on the way: nothing of it ends a job that nobody has begun, or begins one twice.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, AckKind, stream::Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{sync::Notify, time::sleep};
use tower::Layer;
use tower_accepted::{
    JobId, Jobs, RequestBody, When,
    store::{
        Queue,
        nats::{NatsOptions, NatsStore},
    },
};

use crate::{
    server::Servers,
    site::{
        Pair, connected, counting, ended, handed_out, handed_over, hanging, options, process,
        put_back, served, stream, until, waiting, work, write,
    },
    support::{Body, Counter, Failed, get, inner, ok, post, request, send, with},
    wire::Wire,
};

/// A process whose connection can be cut.
async fn behind_a_wire(servers: &Servers, options: NatsOptions) -> (Wire, Jobs<NatsStore>) {
    let wire = Wire::start(&servers.addresses()).await;
    let client = async_nats::connect(wire.url()).await.unwrap();
    let jobs = connected(client, options, Jobs::builder()).await;
    (wire, jobs)
}

/// The messages that a stream has, by their subjects.
async fn messages(stream: &Stream) -> Vec<(String, Bytes)> {
    let state = stream.get_info().await.expect("an answer").state;
    let mut messages = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            messages.push((message.subject.to_string(), message.payload));
        }
    }
    messages
}

/// What the queue is told of requests that it has handed out, from now on, but for signs of life.
async fn told(servers: &Servers) -> impl futures_util::Stream<Item = String> + Unpin {
    let client = servers.client().await;
    let told = client.subscribe("$JS.ACK.accepted_queue.>").await.unwrap();
    client.flush().await.unwrap();
    let told = told.map(|told| String::from_utf8(told.payload.to_vec()).unwrap());
    Box::pin(told.filter(|told| std::future::ready(told != "+WPI")))
}

/// How long a request is not to be handed out again, of which the queue was told so.
fn pause(told: &str) -> Duration {
    let nanos = told
        .strip_prefix("-NAK {\"delay\":")
        .and_then(|rest| rest.strip_suffix('}'));
    let nanos = nanos.unwrap_or_else(|| panic!("it is put off: {told}"));
    Duration::from_nanos(nanos.parse().unwrap())
}

/// Claims the one job there is, as a worker that is elsewhere.
async fn claim(servers: &Servers, id: JobId) {
    let run = format!("$KV.accepted_jobs.job.run.{id}");
    let record = serde_json::json!({
        "nonce": 1, "revision": 2, "status": "running", "created_at": 1, "kind": "", "attempts": 1,
        "holder": {"claim": 7, "message": 1},
    });
    write(servers, run, &record).await;
}

fn large(path: &str) -> Request<Body> {
    let mut large = post(path);
    *large.body_mut() = Body::from(vec![7; 600_000]);
    large
}

#[tokio::test]
async fn a_request_whose_body_cannot_be_read_now_is_run_when_it_can() {
    let Some(pair) = Pair::start(options().inline(1_000)).await else {
        return;
    };
    let accepted = send(&pair.site, large("/large")).await;
    let bodies = stream(&pair.servers, "accepted_requests").await;
    let parts = messages(&bodies).await;
    assert_eq!(parts.len(), 3);
    let jetstream = jetstream::new(pair.servers.client().await);
    jetstream.delete_stream("accepted_requests").await.unwrap();
    let calls = Counter::default();
    let begun = calls.clone();
    work(
        &pair.worker,
        inner(move |request: Request<RequestBody<Body>>| {
            begun.up();
            async {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert!(body == vec![7; 600_000]);
                ok("done")
            }
        }),
    );
    let queue = stream(&pair.servers, "accepted_queue").await;
    until(async || {
        let info = queue.consumer_info("accepted_workers").await.unwrap();
        info.num_redelivered > 0
    })
    .await;
    let waiting = send(&pair.site, get(accepted.location())).await;
    assert_eq!(waiting.json()["status"], "queued", "{waiting:?}");
    let config = bodies.cached_info().config.clone();
    jetstream.create_stream(config).await.unwrap();
    put_back(&pair.servers, parts).await;
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn a_claim_that_is_answered_late_is_one() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().ack_timeout(Duration::from_millis(200));
    let (wire, first) = behind_a_wire(&servers, options.clone()).await;
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let second = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    wire.hold_at("$KV.accepted_jobs.job.run.");
    let accepted = send(&site, post("/it")).await;
    let (calls, others) = (Counter::default(), Counter::default());
    work(&first, counting(&calls, "first"));
    wire.held().await;
    work(&second, counting(&others, "second"));
    // Some leases long: its signs of life go out.
    sleep(Duration::from_secs(4)).await;
    wire.let_go();
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!((calls.count(), others.count()), (1, 0));
}

#[tokio::test]
async fn what_is_claimed_when_nothing_is_to_begin_any_more_is_given_back() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    // So long that nobody could have waited for the lease to end.
    let options = options().lease(Duration::from_secs(600));
    let (wire, first) = behind_a_wire(&servers, options.clone()).await;
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let second = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    wire.hold_at("$KV.accepted_jobs.job.run.");
    let accepted = send(&site, post("/it")).await;
    let (calls, others) = (Counter::default(), Counter::default());
    let working = work(&first, counting(&calls, "first"));
    wire.held().await;
    assert_eq!(first.drain(Duration::ZERO).await, 1);
    wire.let_go();
    working.await.unwrap();
    work(&second, counting(&others, "second"));
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!((calls.count(), others.count()), (0, 1));
}

#[tokio::test]
async fn a_request_that_is_in_the_queue_twice_is_run_once() {
    let Some(pair) = Pair::start(options()).await else {
        return;
    };
    let accepted = send(&pair.site, post("/it")).await;
    let queue = stream(&pair.servers, "accepted_queue").await;
    // As where the answer to a write was lost, and it was repeated.
    put_back(&pair.servers, messages(&queue).await).await;
    assert_eq!(messages(&queue).await.len(), 2);
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    work(&pair.worker, waiting(&calls, &go, "done"));
    until(async || messages(&queue).await.len() == 1).await;
    go.notify_one();
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    until(async || messages(&queue).await.is_empty()).await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn a_request_of_a_canceled_job_that_is_left_in_the_queue_is_taken_out_before_the_job_is_forgotten()
 {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(8));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let site = served(&web);
    let accepted = send(&site, post("/it")).await;
    let queue = stream(&servers, "accepted_queue").await;
    let mut left = messages(&queue).await;
    send(&site, post(&format!("{}/cancel", accepted.location()))).await;
    assert!(messages(&queue).await.is_empty());
    // As if that had failed; and one of which nobody here knows what to do about it.
    let unreadable = format!("accepted.queue.{}", JobId::random());
    left.push((unreadable, Bytes::from_static(b"?")));
    put_back(&servers, left).await;
    until(async || messages(&queue).await.len() == 1).await;
    let answer = send(&site, get(accepted.location())).await;
    assert_eq!(answer.json()["status"], "canceled", "{answer:?}");
}

#[tokio::test]
async fn what_was_handed_out_and_not_claimed_is_run_however_long_it_has_waited() {
    let Some(pair) = Pair::start(options().retain(Duration::from_secs(4))).await else {
        return;
    };
    let accepted = send(&pair.site, post("/it")).await;
    // Longer than records are kept.
    sleep(Duration::from_secs(6)).await;
    let message = handed_out(&pair.servers).await.expect("one");
    message.ack_with(AckKind::Nak(None)).await.unwrap();
    let calls = Counter::default();
    work(&pair.worker, counting(&calls, "done"));
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn what_was_begun_before_all_processes_were_gone_for_long_is_not_begun_again() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    // Longer than a worker's request for more waits: what is handed out to one that has gone is not counted.
    let options = options()
        .retain(Duration::from_secs(4))
        .lease(Duration::from_secs(5));
    let calls = Counter::default();
    let accepted = {
        let web = process(&servers, options.clone(), Jobs::builder()).await;
        let worker = process(&servers, options.clone(), Jobs::builder()).await;
        let site = served(&web);
        let accepted = send(&site, post("/it")).await;
        let working = work(&worker, hanging(&calls));
        until(async || calls.count() == 1).await;
        working.abort();
        accepted
    };
    let bucket = stream(&servers, "KV_accepted_jobs").await;
    until(async || messages(&bucket).await.is_empty()).await;
    let worker = process(&servers, options, Jobs::builder()).await;
    work(&worker, counting(&calls, "again"));
    let site = served(&worker);
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["error"]["code"], "lost", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn what_was_begun_is_known_as_long_as_there_is_any_process() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(4));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let site = served(&web);
    let (calls, kept) = (Counter::default(), Counter::default());
    let accepted = send(&site, post("/it")).await;
    {
        let worker = process(&servers, options.clone(), Jobs::builder()).await;
        let working = work(&worker, hanging(&calls));
        until(async || calls.count() == 1).await;
        working.abort();
    }
    // Longer than records are kept, and one that is not renewed would be gone.
    sleep(Duration::from_secs(8)).await;
    let running = send(&site, get(accepted.location())).await;
    assert_eq!(running.json()["status"], "running", "{running:?}");
    let worker = process(&servers, options, Jobs::builder()).await;
    work(&worker, counting(&kept, "again"));
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["error"]["code"], "lost", "{end:?}");
    assert_eq!((calls.count(), kept.count()), (1, 0));
}

#[tokio::test]
async fn the_time_that_a_job_may_take_begins_when_a_worker_has_it() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let builder = || Jobs::builder().job_timeout(Duration::from_secs(2));
    let web = process(&servers, options(), builder()).await;
    let worker = process(&servers, options(), builder()).await;
    let site = served(&web);
    let quick = send(&site, post("/quick")).await;
    let hanging = send(&site, post("/hanging")).await;
    // Longer than it may take.
    sleep(Duration::from_secs(3)).await;
    work(
        &worker,
        inner(
            async |request: Request<RequestBody<Body>>| match request.uri().path() {
                "/quick" => ok("done"),
                _ => std::future::pending::<Result<_, Failed>>().await,
            },
        ),
    );
    let end = ended(&site, quick.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    let end = ended(&site, hanging.location()).await;
    assert_eq!(end.json()["error"]["code"], "timeout", "{end:?}");
}

#[tokio::test]
async fn what_servers_do_not_take_in_one_message_is_cut_or_refused() {
    let Some(servers) = Servers::start_with(1, "max_payload: 64KB", "").await else {
        return;
    };
    let web = process(&servers, options(), Jobs::builder()).await;
    let worker = process(&servers, options(), Jobs::builder()).await;
    let site = served(&web);
    let long = HeaderValue::from_str(&"x".repeat(70_000)).unwrap();
    let mut refused = post("/refused");
    refused.headers_mut().insert("x-long", long.clone());
    let refused = send(&site, refused).await;
    assert_eq!(
        refused.status,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "{refused:?}"
    );
    assert_eq!(
        refused.json()["type"],
        "urn:problem-type:tower-accepted:fields-too-large"
    );
    let large = send(&site, large("/large")).await;
    assert_eq!(large.status, StatusCode::ACCEPTED, "{large:?}");
    let answered = send(&site, post("/long")).await;
    work(
        &worker,
        inner(move |request: Request<RequestBody<Body>>| {
            let (is_long, long) = (request.uri().path() == "/long", long.clone());
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut response = ok("")?;
                match is_long {
                    true => {
                        response.headers_mut().insert("x-long", long);
                    }
                    false => *response.body_mut() = Body::from(body),
                }
                Ok::<_, Failed>(response)
            }
        }),
    );
    let end = ended(&site, large.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    let result = send(&site, get(&format!("{}/result", large.location()))).await;
    assert!(
        result.body == vec![7; 600_000],
        "the body is not what it was"
    );
    let end = ended(&site, answered.location()).await;
    assert_eq!(end.json()["error"]["code"], "result_too_large", "{end:?}");
}

#[tokio::test]
async fn a_result_that_cannot_be_read_now_is_503_and_gone_only_with_its_job() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().inline(1_000);
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let small = process(
        &servers,
        options.clone().max_bytes(100_000),
        Jobs::builder(),
    )
    .await;
    let worker = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    let small = served(&small);
    let accepted = send(&site, post("/it")).await;
    work(
        &worker,
        inner(async |_| {
            let mut large = ok("")?;
            *large.body_mut() = Body::from(vec![8; 700_000]);
            Ok::<_, Failed>(large)
        }),
    );
    ended(&site, accepted.location()).await;
    let result = || get(&format!("{}/result", accepted.location()));
    assert!(send(&site, result()).await.body == vec![8; 700_000]);
    // A process that has no room for it.
    let none = send(&small, result()).await;
    assert_eq!(none.status, StatusCode::SERVICE_UNAVAILABLE, "{none:?}");
    assert!(none.header("retry-after").is_some());
    stream(&servers, "accepted_results")
        .await
        .purge()
        .await
        .unwrap();
    let away = send(&site, result()).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE, "{away:?}");
    send(&site, request("DELETE", accepted.location())).await;
    let gone = send(&site, result()).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");
}

#[tokio::test]
async fn a_body_that_is_not_found_is_waited_for_as_long_as_it_may_be_there() {
    let Some(pair) = Pair::start(options().inline(1_000)).await else {
        return;
    };
    let accepted = send(&pair.site, large("/large")).await;
    let bodies = stream(&pair.servers, "accepted_requests").await;
    let parts = messages(&bodies).await;
    bodies.purge().await.unwrap();
    let calls = Counter::default();
    work(&pair.worker, counting(&calls, "done"));
    let queue = stream(&pair.servers, "accepted_queue").await;
    until(async || {
        let info = queue.consumer_info("accepted_workers").await.unwrap();
        info.num_redelivered > 0
    })
    .await;
    assert_eq!(calls.count(), 0);
    put_back(&pair.servers, parts).await;
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn a_request_whose_body_has_expired_is_lost() {
    let options = options().inline(1_000);
    let Some(pair) = Pair::start(options.max_queued_for(Duration::from_secs(2))).await else {
        return;
    };
    let accepted = send(&pair.site, large("/large")).await;
    let bodies = stream(&pair.servers, "accepted_requests").await;
    until(async || messages(&bodies).await.is_empty()).await;
    let calls = Counter::default();
    work(&pair.worker, counting(&calls, "done"));
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["error"]["code"], "lost", "{end:?}");
    assert_eq!(calls.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_is_good_for_a_request_that_its_process_did_not_bring_to_the_queue() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let keyed = || with(post("/it"), &[("idempotency-key", "\"once\"")]);
    let never = Counter::default();
    let (doomed, first) = handed_over(&servers, options(), &never, keyed()).await;
    doomed.shutdown_background();
    // As if that had died a moment sooner.
    let queue = stream(&servers, "accepted_queue").await;
    queue.purge().await.unwrap();
    let other = process(&servers, options(), Jobs::builder()).await;
    let site = served(&other);
    let again = send(&site, keyed()).await;
    assert_eq!(again.status, StatusCode::SERVICE_UNAVAILABLE, "{again:?}");
    let calls = Counter::default();
    work(&other, counting(&calls, "done"));
    until(async || send(&site, keyed()).await.status == StatusCode::ACCEPTED).await;
    let end = ended(&site, first.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn who_joins_a_request_that_its_process_does_not_know_to_be_in_the_queue_can_rely_on_it() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let keyed = || with(post("/it"), &[("idempotency-key", "\"once\"")]);
    let unsure = options().ack_timeout(Duration::from_secs(1));
    let (wire, first) = behind_a_wire(&servers, unsure).await;
    let other = process(&servers, options(), Jobs::builder()).await;
    let never = hanging(&Counter::default());
    let when = When::After(Duration::from_millis(50));
    let first = first.layer().when(when).layer(never);
    wire.hold_at("accepted.queue.");
    let refused = tokio::spawn(async move { send(&first, keyed()).await });
    wire.held().await;
    let site = served(&other);
    let mut joined = None;
    until(async || {
        let answer = send(&site, keyed()).await;
        joined = (answer.status == StatusCode::ACCEPTED).then(|| answer.location().to_owned());
        joined.is_some()
    })
    .await;
    let refused = refused.await.unwrap();
    assert_eq!(
        refused.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{refused:?}"
    );
    let calls = Counter::default();
    work(&other, counting(&calls, "done"));
    let end = ended(&site, &joined.unwrap()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn a_request_is_put_off_for_longer_than_a_sign_of_life_takes() {
    let options = options().inline(1_000).lease(Duration::from_secs(10));
    let Some(pair) = Pair::start(options).await else {
        return;
    };
    send(&pair.site, large("/large")).await;
    let jetstream = jetstream::new(pair.servers.client().await);
    jetstream.delete_stream("accepted_requests").await.unwrap();
    let mut told = told(&pair.servers).await;
    work(&pair.worker, counting(&Counter::default(), "done"));
    let put_off = pause(&told.next().await.unwrap());
    assert!(put_off >= Duration::from_secs(5), "{put_off:?}");
}

#[tokio::test]
async fn what_is_handed_out_beside_who_has_just_claimed_it_is_left_to_that_one() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().lease(Duration::from_secs(4));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let first = process(&servers, options.clone(), Jobs::builder()).await;
    let second = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    let accepted = send(&site, post("/it")).await;
    work(&first, waiting(&calls, &go, "first"));
    until(async || calls.count() == 1).await;
    // As from who had it before, was thought dead and gives it back.
    let mut told = told(&servers).await;
    let client = servers.client().await;
    let subject = "$JS.ACK.accepted_queue.accepted_workers.1.1.1.1.0";
    client.publish(subject, "-NAK".into()).await.unwrap();
    assert_eq!(told.next().await.unwrap(), "-NAK");
    let others = Counter::default();
    work(&second, counting(&others, "second"));
    let put_off = pause(&told.next().await.unwrap());
    assert!(put_off >= Duration::from_secs(4), "{put_off:?}");
    // As long, and longer: its signs of life go out.
    sleep(Duration::from_secs(6)).await;
    go.notify_one();
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!((calls.count(), others.count()), (1, 0));
}

#[tokio::test]
async fn who_was_too_late_to_claim_a_request_does_not_think_dead_who_was_sooner() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().lease(Duration::from_secs(2));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let patient = options.ack_timeout(Duration::from_secs(60));
    let (wire, late) = behind_a_wire(&servers, patient).await;
    let site = served(&web);
    let accepted = send(&site, post("/it")).await;
    // Handed out before, and not claimed.
    let message = handed_out(&servers).await.expect("one");
    message.ack_with(AckKind::Nak(None)).await.unwrap();
    // It has heard that nothing is known of the job, and asks since when it would be.
    wire.hold_at("_jobs.turn");
    let calls = Counter::default();
    work(&late, counting(&calls, "late"));
    wire.held().await;
    claim(&servers, accepted.id()).await;
    // So long that it was not claimed a moment ago.
    sleep(Duration::from_secs(2)).await;
    let mut told = told(&servers).await;
    wire.let_go();
    let put_off = pause(&told.next().await.unwrap());
    assert!(put_off >= Duration::from_secs(2), "{put_off:?}");
    let running = send(&site, get(accepted.location())).await;
    assert_eq!(running.json()["status"], "running", "{running:?}");
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn who_looks_late_at_what_it_was_handed_does_not_think_dead_who_has_it() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().lease(Duration::from_secs(4));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let site = served(&web);
    let store = NatsStore::connect(servers.client().await, options).await;
    let store = store.unwrap();
    let accepted = send(&site, post("/it")).await;
    // Handed out before, and not claimed.
    let message = handed_out(&servers).await.expect("one");
    message.ack_with(AckKind::Nak(None)).await.unwrap();
    let ticket = store.next(1).await.unwrap().pop().expect("one");
    claim(&servers, accepted.id()).await;
    // So long that it may have been handed to that one, and that it was not claimed a moment ago.
    sleep(Duration::from_millis(2_500)).await;
    let mut told = told(&servers).await;
    assert!(store.claim(ticket).await.unwrap().is_none());
    let put_off = pause(&told.next().await.unwrap());
    assert!(put_off >= Duration::from_secs(4), "{put_off:?}");
}

#[tokio::test]
async fn a_ticket_is_given_back_at_once_only_while_nobody_else_can_have_been_handed_it() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().lease(Duration::from_secs(4));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let site = served(&web);
    let store = NatsStore::connect(servers.client().await, options).await;
    let store = store.unwrap();
    send(&site, post("/it")).await;
    let mut told = told(&servers).await;
    let ticket = store.next(1).await.unwrap();
    drop(ticket);
    assert_eq!(told.next().await.unwrap(), "-NAK");
    let ticket = store.next(1).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    drop(ticket);
    // It comes again by the end of its lease, and nothing was told before.
    let mut again = Vec::new();
    until(async || {
        again = store.next(1).await.unwrap();
        !again.is_empty()
    })
    .await;
    let client = servers.client().await;
    let nobody = "$JS.ACK.accepted_queue.nobody";
    client.publish(nobody, "now".into()).await.unwrap();
    assert_eq!(told.next().await.unwrap(), "now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_process_had_begun_before_all_were_gone_for_long_is_not_begun_again() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(4));
    let never = Counter::default();
    let (doomed, accepted) = handed_over(&servers, options.clone(), &never, post("/it")).await;
    doomed.shutdown_background();
    let bucket = stream(&servers, "KV_accepted_jobs").await;
    until(async || messages(&bucket).await.is_empty()).await;
    let worker = process(&servers, options, Jobs::builder()).await;
    let calls = Counter::default();
    work(&worker, counting(&calls, "again"));
    let site = served(&worker);
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["error"]["code"], "lost", "{end:?}");
    assert_eq!(calls.count(), 0);
}

#[tokio::test]
async fn a_claim_is_given_up_before_what_others_have_made_of_the_job_may_be_forgotten() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(4));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let second = process(&servers, options.clone(), Jobs::builder()).await;
    let impatient = options.ack_timeout(Duration::from_millis(200));
    let (wire, first) = behind_a_wire(&servers, impatient).await;
    let site = served(&web);
    wire.hold_at("$KV.accepted_jobs.job.run.");
    let accepted = send(&site, request("PUT", "/it")).await;
    let (calls, others) = (Counter::default(), Counter::default());
    work(&first, counting(&calls, "first"));
    wire.held().await;
    // Its signs of life go out for as long as it waits for its answer.
    work(&second, counting(&others, "second"));
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    assert_eq!((calls.count(), others.count()), (0, 1));
}

#[tokio::test]
async fn who_was_away_for_as_long_as_jobs_are_kept_ends_none_a_second_time() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(3));
    let (wire, first) = behind_a_wire(&servers, options.clone()).await;
    let second = process(&servers, options, Jobs::builder()).await;
    let site = served(&second);
    let (calls, go) = (Counter::default(), Arc::new(Notify::new()));
    let working = work(&first, waiting(&calls, &go, "first"));
    let accepted = send(&site, request("PUT", "/it")).await;
    until(async || calls.count() == 1).await;
    wire.cut(true);
    let others = Counter::default();
    work(&second, counting(&others, "second"));
    let end = ended(&site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
    until(async || send(&site, get(accepted.location())).await.status == StatusCode::NOT_FOUND)
        .await;
    wire.cut(false);
    go.notify_one();
    first.drain(Duration::from_secs(60)).await;
    working.await.unwrap();
    let forgotten = send(&site, get(accepted.location())).await;
    assert_eq!(forgotten.status, StatusCode::NOT_FOUND, "{forgotten:?}");
    assert_eq!((calls.count(), others.count()), (1, 1));
}
