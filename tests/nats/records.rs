//! The records of a job: its details, the outcome of its key, and its result in chunks.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, request::Parts};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower_accepted::{
    JobId, Status,
    store::{
        Acceptance, CallbackTarget, End, Fingerprint, Finished, Key, KeyOutcome, Lookup,
        MAX_FIELD_VALUES, NewJob, NewKey, Outcome, Purpose, Queue, Reading, Revisions, Store,
        Writer,
        nats::{NatsClaim, NatsStore, NatsWriter},
    },
};

use crate::{
    site::{Deployment, options, or_skip},
    streams::{KEYS, messages, publish, read_record, stream, write_record},
};

/// The size of a chunk at a server with the default limit of messages.
const CHUNK_BYTES: usize = 256 << 10;

fn request() -> Parts {
    let (head, ()) = Request::post("/reports").body(()).unwrap().into_parts();
    head
}

async fn accept(store: &NatsStore, new: &NewJob) -> Acceptance<NatsClaim> {
    let record = store.record(&request(), &Bytes::new(), None);
    store.accept(new, record).await.unwrap()
}

/// Accepts a job that this process runs.
async fn claim(store: &NatsStore, new: &mut NewJob) -> NatsClaim {
    new.run_here = true;
    match accept(store, new).await {
        Acceptance::RunHere(claim) => claim,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Ends a job with a response of this body.
async fn finish(store: &NatsStore, claim: &NatsClaim, body: Bytes, key: KeyOutcome) {
    let (head, ()) = Response::new(()).into_parts();
    let mut writer: NatsWriter = store.respond(claim, head, None);
    poll_fn(|cx| writer.poll_room(body.len(), cx))
        .await
        .unwrap();
    writer.push(body);
    let mut end = End::new(Outcome::Response(writer));
    end.key = key;
    assert_eq!(store.finish(claim, end).await.unwrap(), Finished::First);
}

async fn read(store: &NatsStore, id: JobId, from: usize) -> Reading {
    let reading = store.read(id, from as u64).await.unwrap();
    reading.expect("a response")
}

/// Reads a body frame by frame, and keeps none of the frames.
async fn body(reading: Reading) -> Vec<u8> {
    let (mut body, mut bytes) = (reading.response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(frame.unwrap().data_ref().expect("no trailers"));
    }
    bytes
}

fn keyed(fingerprint: u8) -> NewJob {
    let mut new = NewJob::new(JobId::random());
    let fingerprint = Fingerprint::from_bytes([fingerprint; 16]);
    new.key = Some(NewKey::new(Key::new(b"once", None), fingerprint));
    new
}

#[tokio::test]
async fn details_of_a_request_reach_every_snapshot() {
    let nats = or_skip!(Deployment::start(options()));
    let (store, worker) = (nats.store().await, nats.store().await);
    let mut new = NewJob::new(JobId::random());
    let target = CallbackTarget::new("https://example.com/", ["job.succeeded".to_owned()]);
    let callbacks: Arc<[CallbackTarget]> = [target].into();
    new.title = Some("a report".into());
    new.callbacks = Some(callbacks.clone());
    let snapshot = async || match store.get(new.id).await {
        Ok(Lookup::Found(job)) => {
            assert_eq!(job.title.as_deref(), Some("a report"));
            assert_eq!(job.callbacks.as_ref(), Some(&callbacks));
            (job.status, job.attempt)
        }
        other => panic!("not found: {other:?}"),
    };
    assert!(matches!(accept(&store, &new).await, Acceptance::Queued));
    assert_eq!(snapshot().await, (Status::Queued, 0));
    let ticket = worker.next(1).await.unwrap().pop().expect("a request");
    let work = worker.claim(ticket).await.unwrap().expect("a request");
    assert_eq!(work.attempt, 1);
    assert_eq!(snapshot().await, (Status::Running, 1));
    finish(&worker, &work.claim, Bytes::new(), KeyOutcome::Keep).await;
    assert_eq!(snapshot().await, (Status::Succeeded, 1));
    assert_eq!(read(&store, new.id, 0).await.run, 1);
}

#[tokio::test]
async fn released_key_is_free_even_if_its_entry_stays() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let mut first = keyed(1);
    let running = claim(&store, &mut first).await;
    assert!(matches!(
        accept(&store, &keyed(2)).await,
        Acceptance::KeyReused
    ));
    let bucket = stream(&nats.servers, KEYS).await;
    let keys = messages(&bucket).await;
    assert_eq!(keys.len(), 1);
    finish(&store, &running, Bytes::new(), KeyOutcome::Release).await;
    assert_eq!(messages(&bucket).await, []);
    // As if the process had died before it removed the entry.
    publish(&nats.servers, keys).await;
    let mut second = keyed(2);
    drop(claim(&store, &mut second).await);
    let joined = accept(&store, &keyed(2)).await;
    assert!(
        matches!(&joined, Acceptance::Joined(job) if job.id == second.id),
        "{joined:?}"
    );
}

#[tokio::test]
async fn large_result_is_read_chunk_by_chunk() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let mut new = NewJob::new(JobId::random());
    let running = claim(&store, &mut new).await;
    let result: Vec<u8> = (0..5 * CHUNK_BYTES + 7)
        .map(|byte| (byte % 251) as u8)
        .collect();
    let waiting = tokio::spawn({
        let (store, id) = (nats.store().await, new.id);
        async move { body(read(&store, id, 0).await).await }
    });
    sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "the job has not ended");
    finish(&store, &running, result.clone().into(), KeyOutcome::Keep).await;
    assert!(waiting.await.unwrap() == result);

    // One chunk at a time fits.
    let budget = store.budget();
    assert_eq!(budget.used(), 0);
    budget.set_limit(2 * CHUNK_BYTES);
    let reading = read(&store, new.id, 0).await;
    assert_eq!(reading.available, result.len() as u64);
    let stored = reading.response.body().len();
    assert_eq!(stored, Some(result.len() as u64));
    assert_eq!(budget.used_for(Purpose::Replay), CHUNK_BYTES);
    assert!(body(reading).await == result);
    let from = 3 * CHUNK_BYTES + 5;
    assert!(body(read(&store, new.id, from).await).await == result[from..]);
    assert!(
        body(read(&store, new.id, result.len() + 1).await)
            .await
            .is_empty()
    );
    assert_eq!(budget.used(), 0);
    budget.set_limit(CHUNK_BYTES - 1);
    budget.set_room_timeout(Duration::ZERO);
    assert!(store.read(new.id, 0).await.is_err());

    // Version 0.1 did not store the size of the chunks.
    budget.set_limit(2 * CHUNK_BYTES);
    let subject = format!("$KV.accepted_jobs.job.end.{}", new.id);
    let mut record = read_record(&nats.servers, &subject).await;
    let chunks = record["response"]["parts"].as_object_mut().unwrap();
    assert_eq!(chunks.remove("size"), Some(CHUNK_BYTES.into()));
    write_record(&nats.servers, subject, &record).await;
    assert!(body(read(&store, new.id, from).await).await == result[from..]);
}

#[tokio::test]
async fn server_restart_keeps_a_result_that_is_sent() {
    let options = options().ack_timeout(Duration::from_millis(300));
    let mut nats = or_skip!(Deployment::start(options));
    let store = nats.store().await;
    let mut new = NewJob::new(JobId::random());
    let running = claim(&store, &mut new).await;
    let result = Bytes::from(vec![7; 3 * CHUNK_BYTES]);
    finish(&store, &running, result.clone(), KeyOutcome::Keep).await;
    let reading = read(&store, new.id, 0).await;
    nats.servers.kill_node(0);
    let mut whole = pin!(body(reading));
    let while_down = timeout(Duration::from_secs(1), &mut whole).await;
    assert!(
        while_down.is_err(),
        "the second chunk was read from no server"
    );
    nats.servers.start_node(0);
    assert!(whole.await == result);
}

/// Returns a map of this number of values for one name.
fn values(count: usize) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for at in 0..count {
        fields.append("x-any", HeaderValue::from(at));
    }
    fields
}

#[tokio::test]
async fn request_with_too_many_fields_is_refused() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let accept = async |head: HeaderMap, trailers: Option<HeaderMap>| {
        let mut parts = request();
        parts.headers = head;
        let record = store.record(&parts, &Bytes::new(), trailers.as_ref());
        let new = NewJob::new(JobId::random());
        store.accept(&new, record).await.unwrap()
    };
    let many = || values(MAX_FIELD_VALUES + 1);
    for (head, trailers) in [(many(), None), (HeaderMap::new(), Some(many()))] {
        let accepted = accept(head, trailers).await;
        assert!(matches!(accepted, Acceptance::TooLarge), "{accepted:?}");
    }
    let most = values(MAX_FIELD_VALUES);
    let accepted = accept(most.clone(), Some(most.clone())).await;
    assert!(matches!(accepted, Acceptance::Queued), "{accepted:?}");
    let ticket = store.next(1).await.unwrap().pop().expect("a request");
    let work = store.claim(ticket).await.unwrap().expect("a request");
    assert_eq!(work.head.headers, most);
    assert_eq!(work.body.trailers.as_deref(), Some(&most));
}

#[tokio::test]
async fn result_with_too_many_fields_is_unreadable() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    // The layer refuses it; version 0.1 did not.
    for (in_head, count) in [(true, 30_000), (false, 30_000), (true, MAX_FIELD_VALUES)] {
        let mut new = NewJob::new(JobId::random());
        let running = claim(&store, &mut new).await;
        let (mut head, ()) = Response::new(()).into_parts();
        if in_head {
            head.headers = values(count);
        }
        let mut writer = store.respond(&running, head, None);
        poll_fn(|cx| writer.poll_room(0, cx)).await.unwrap();
        if !in_head {
            writer.push_trailers(values(count));
        }
        let end = End::new(Outcome::Response(writer));
        assert_eq!(store.finish(&running, end).await.unwrap(), Finished::First);
        let is_readable = store.read(new.id, 0).await.is_ok();
        assert_eq!(is_readable, count <= MAX_FIELD_VALUES);
    }
}

#[tokio::test]
async fn missing_chunk_breaks_off_the_body() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let mut new = NewJob::new(JobId::random());
    let running = claim(&store, &mut new).await;
    let result = Bytes::from(vec![7; 2 * CHUNK_BYTES]);
    finish(&store, &running, result, KeyOutcome::Keep).await;
    let reading = read(&store, new.id, 0).await;
    store.forget(new.id, &Revisions::Any).await.unwrap();
    let collected = reading.response.into_body().collect().await;
    assert!(collected.is_err());
    assert!(store.read(new.id, 0).await.unwrap().is_none());
}
