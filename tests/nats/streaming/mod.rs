//! Responses that are read while they are produced, by another process than the one that runs the
//! call.

mod fates;
mod splices;

use std::{
    future::poll_fn,
    ops::Range,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tower_accepted::{
    JobId, Snapshot, Status,
    store::{
        Acceptance, End, Finished, Lookup, NewJob, Outcome, Purpose, Queue, Reading, ResultBody,
        Store, Work, Writer,
        nats::{NatsClaim, NatsStore, NatsWriter},
    },
};

use crate::{
    server::Servers,
    site::{Deployment, options, or_skip, until},
    streams::{BUCKET, QUEUE, RESULTS, messages, stream},
};

/// The time limit of a step. Only a failure takes that long.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a part of the output that call `run` of a case produces.
fn output(case: u64, run: u32, range: Range<usize>) -> Bytes {
    let start = case.wrapping_mul(0x9e37_79b9).wrapping_add(run.into());
    range
        .map(|at| {
            let mixed = (start ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 56) as u8
        })
        .collect()
}

/// Creates a job for any worker.
async fn enqueue(store: &NatsStore, id: JobId) {
    let acceptance = accept(store, &NewJob::new(id), Method::PUT).await;
    assert!(matches!(acceptance, Acceptance::Queued), "{acceptance:?}");
}

/// Creates a job that this process runs.
async fn claim_new(store: &NatsStore) -> (JobId, NatsClaim) {
    let mut new = NewJob::new(JobId::random());
    new.run_here = true;
    match accept(store, &new, Method::POST).await {
        Acceptance::RunHere(claim) => (new.id, claim),
        other => panic!("not accepted: {other:?}"),
    }
}

async fn accept(store: &NatsStore, new: &NewJob, method: Method) -> Acceptance<NatsClaim> {
    let request = Request::builder().method(method).uri("/it").body(());
    let (head, ()) = request.unwrap().into_parts();
    let record = store.record(&head, &Bytes::new(), None);
    store.accept(new, record).await.unwrap()
}

/// Claims the request of the only job.
async fn claim_next(store: &NatsStore) -> Work<NatsClaim> {
    let claiming = async {
        loop {
            for ticket in store.next(1).await.unwrap() {
                if let Some(work) = store.claim(ticket).await.unwrap() {
                    return work;
                }
            }
        }
    };
    timeout(STEP_TIMEOUT, claiming).await.unwrap()
}

fn respond(store: &NatsStore, claim: &NatsClaim) -> NatsWriter {
    let (head, ()) = Response::new(()).into_parts();
    store.respond(claim, head, None)
}

/// Waits for room, as the layer does, and appends data.
async fn write(writer: &mut NatsWriter, data: Bytes) {
    let room = poll_fn(|cx| {
        let room = writer.poll_room(data.len(), cx);
        if room.is_pending() {
            writer.flush();
        }
        room
    });
    timeout(STEP_TIMEOUT, room).await.unwrap().unwrap();
    writer.push(data);
}

async fn publish_part(writer: &mut NatsWriter, data: Bytes) {
    write(writer, data).await;
    writer.flush();
}

async fn respond_whole(store: &NatsStore, claim: &NatsClaim, writer: NatsWriter) -> Finished {
    let end = End::new(Outcome::Response(writer));
    store.finish(claim, end).await.unwrap()
}

async fn read(store: &NatsStore, id: JobId, from: usize) -> Option<Reading> {
    let reading = timeout(STEP_TIMEOUT, store.read(id, from as u64));
    reading.await.unwrap().unwrap()
}

async fn body(store: &NatsStore, id: JobId, from: usize) -> ResultBody {
    let reading = read(store, id, from).await.expect("a response");
    reading.response.into_body()
}

/// Reads the next frame with data. Returns `None` at the end, and an error if the body breaks off.
async fn next_data(body: &mut ResultBody) -> Option<Result<Bytes, String>> {
    loop {
        let frame = timeout(STEP_TIMEOUT, body.frame()).await.unwrap()?;
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error.to_string())),
        }
    }
}

/// Reads so many bytes of a body that has not ended.
async fn next_bytes(body: &mut ResultBody, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(next_data(body).await.expect("more").expect("no break"));
    }
    bytes
}

/// Reads a body to its end. Returns its bytes, and whether it broke off.
async fn rest(mut body: ResultBody) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match next_data(&mut body).await {
            Some(Ok(data)) => bytes.extend(data),
            Some(Err(_)) => return (bytes, true),
            None => return (bytes, false),
        }
    }
}

async fn snapshot(store: &NatsStore, id: JobId) -> Snapshot {
    match store.get(id).await {
        Ok(Lookup::Found(job)) => *job,
        other => panic!("not found: {other:?}"),
    }
}

/// Returns the number of messages in the stream of results.
async fn stored_messages(nats: &Deployment) -> usize {
    messages(&stream(&nats.servers, RESULTS).await).await.len()
}

#[tokio::test]
async fn another_process_reads_what_is_produced() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { rest(body(&other, id, 0).await).await }
    });
    let mut writer = respond(&producer, &claim);
    let whole = output(0, 1, 0..600_000);
    publish_part(&mut writer, whole.slice(..1_000)).await;
    let (mut first, mut late) = (body(&other, id, 0).await, body(&other, id, 990).await);
    assert_eq!(next_bytes(&mut first, 1_000).await, whole[..1_000]);
    assert_eq!(next_bytes(&mut late, 10).await, whole[990..1_000]);
    let mut at = 1_000;
    for length in [1, 30, 70_000, 300_000] {
        // Each piece arrives before the next one is produced.
        publish_part(&mut writer, whole.slice(at..at + length)).await;
        assert!(next_bytes(&mut first, length).await == whole[at..at + length]);
        at += length;
    }
    assert!(next_bytes(&mut late, at - 1_000).await == whole[1_000..at]);
    let middle = read(&other, id, 71_000).await.expect("a response");
    assert_eq!((middle.run, middle.available), (1, at as u64));
    let mut middle = middle.response.into_body();
    assert!(next_bytes(&mut middle, at - 71_000).await == whole[71_000..at]);

    write(&mut writer, whole.slice(at..)).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    writer.push_trailers(trailers.clone());
    let finished = respond_whole(&producer, &claim, writer).await;
    assert_eq!(finished, Finished::First);
    for reader in [late, middle] {
        assert!(rest(reader).await == (whole[at..].to_vec(), false));
    }
    let end = timeout(STEP_TIMEOUT, first.collect()).await.unwrap();
    let end = end.unwrap();
    assert_eq!(end.trailers(), Some(&trailers));
    assert!(end.to_bytes() == whole[at..]);
    assert!(waiting.await.unwrap() == (whole.to_vec(), false));
    assert_eq!(snapshot(&other, id).await.status, Status::Succeeded);

    // The result is the parts.
    for from in [0, 1, 999, 1_000, 1_031, at, 599_999, 600_000] {
        let reading = read(&producer, id, from).await.expect("a result");
        assert_eq!(reading.available, 600_000);
        assert!(rest(reading.response.into_body()).await == (whole[from..].to_vec(), false));
    }
    let parts = messages(&stream(&nats.servers, RESULTS).await).await;
    let bytes: usize = parts.iter().map(|(_, payload)| payload.len()).sum();
    assert!((600_000..602_000).contains(&bytes), "{bytes} bytes stored");
    drop(claim);
    assert_eq!((producer.budget().used(), other.budget().used()), (0, 0));
}

#[tokio::test]
async fn response_that_is_not_flushed_has_no_parts() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let (id, claim) = claim_new(&store).await;
    let mut writer = respond(&store, &claim);
    write(&mut writer, output(0, 1, 0..5_000)).await;
    write(&mut writer, output(0, 1, 5_000..9_000)).await;
    respond_whole(&store, &claim, writer).await;
    assert_eq!(stored_messages(&nats).await, 0);
    let result = rest(body(&store, id, 0).await).await;
    assert!(result == (output(0, 1, 0..9_000).to_vec(), false));
}

#[tokio::test]
async fn head_is_readable_before_the_first_byte() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    write(&mut writer, Bytes::new()).await;
    writer.flush();
    let reading = read(&other, id, 0).await.expect("a head");
    assert_eq!(reading.available, 0);
    let mut body = reading.response.into_body();
    publish_part(&mut writer, output(0, 1, 0..10)).await;
    assert_eq!(next_bytes(&mut body, 10).await, output(0, 1, 0..10));
}

#[tokio::test]
async fn many_small_parts_are_a_result() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    let whole = output(0, 1, 0..9_000);
    for (index, piece) in whole.chunks(30).enumerate() {
        publish_part(&mut writer, whole.slice_ref(piece)).await;
        // One message each.
        until(async || stored_messages_at_least(&nats, index).await).await;
    }
    respond_whole(&producer, &claim, writer).await;
    for from in [0, 1, 29, 30, 4_444, 8_999] {
        let result = rest(body(&other, id, from).await).await;
        assert!(result == (whole[from..].to_vec(), false));
    }
    assert_eq!(other.budget().used(), 0);
}

async fn stored_messages_at_least(nats: &Deployment, count: usize) -> bool {
    let results = stream(&nats.servers, RESULTS).await;
    results.cached_info().state.messages as usize > count
}

#[tokio::test]
async fn published_bytes_are_released() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let (id, claim) = claim_new(&store).await;
    let budget = store.budget();
    budget.set_limit(8 << 20);
    let mut writer = respond(&store, &claim);
    let mut at = 0;
    // Twice what the budget allows for responses.
    while at < 8 << 20 {
        publish_part(&mut writer, output(0, 1, at..at + 500_000)).await;
        at += 500_000;
        assert!(budget.used_for(Purpose::Response) < 3 << 20);
    }
    until(async || budget.used_for(Purpose::Response) == 0).await;
    respond_whole(&store, &claim, writer).await;
    let result = rest(body(&store, id, 0).await).await;
    assert!(result == (output(0, 1, 0..at).to_vec(), false));
}

#[tokio::test]
async fn producer_waits_for_its_publisher() {
    let nats = or_skip!(Deployment::start(options()));
    let patient = options().ack_timeout(STEP_TIMEOUT);
    let (wire, store) = nats.store_behind_wire(patient).await;
    let (_id, claim) = claim_new(&store).await;
    let mut writer = respond(&store, &claim);
    wire.hold_at(".result.part-");
    publish_part(&mut writer, output(0, 1, 0..10)).await;
    wire.held().await;
    // The second part is the first one that waits.
    publish_part(&mut writer, output(0, 1, 10..(1 << 20) + 11)).await;
    let room = poll_fn(|cx| Poll::Ready(writer.poll_room(1, cx).is_pending()));
    assert!(room.await);
    wire.release();
    write(&mut writer, output(0, 1, 0..1)).await;
}

#[tokio::test]
async fn server_restart_breaks_no_output() {
    let options = options()
        .lease(STEP_TIMEOUT)
        .ack_timeout(Duration::from_millis(300));
    let mut nats = or_skip!(Deployment::start(options));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    publish_part(&mut writer, output(0, 1, 0..100)).await;
    let mut reader = body(&other, id, 0).await;
    assert_eq!(next_bytes(&mut reader, 100).await, output(0, 1, 0..100));
    nats.servers.kill_node(0);
    publish_part(&mut writer, output(0, 1, 100..200)).await;
    nats.servers.start_node(0);
    assert_eq!(next_bytes(&mut reader, 100).await, output(0, 1, 100..200));
    publish_part(&mut writer, output(0, 1, 200..300)).await;
    assert_eq!(next_bytes(&mut reader, 100).await, output(0, 1, 200..300));
    respond_whole(&producer, &claim, writer).await;
    assert_eq!(rest(reader).await, (Vec::new(), false));
}

#[tokio::test]
async fn lost_consumer_breaks_no_output() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    publish_part(&mut writer, output(0, 1, 0..10)).await;
    let mut reader = body(&other, id, 0).await;
    assert_eq!(next_bytes(&mut reader, 10).await, output(0, 1, 0..10));
    let results = stream(&nats.servers, RESULTS).await;
    let consumers: Vec<String> = results.consumer_names().try_collect().await.unwrap();
    assert_eq!(consumers.len(), 1);
    results.delete_consumer(&consumers[0]).await.unwrap();
    for start in [10, 20, 30] {
        publish_part(&mut writer, output(0, 1, start..start + 10)).await;
        let piece = next_bytes(&mut reader, 10).await;
        assert_eq!(piece, output(0, 1, start..start + 10));
    }
}

#[tokio::test]
async fn lost_leader_breaks_no_output() {
    let options = options().lease(STEP_TIMEOUT);
    let options = options.ack_timeout(Duration::from_millis(500));
    let mut nats = or_skip!(Deployment::cluster(options));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    publish_part(&mut writer, output(0, 1, 0..10)).await;
    let mut reader = body(&other, id, 0).await;
    assert_eq!(next_bytes(&mut reader, 10).await, output(0, 1, 0..10));
    nats.servers.whole(&[QUEUE, BUCKET, RESULTS]).await;
    let results = stream(&nats.servers, RESULTS).await;
    let cluster = results.get_info().await.unwrap().cluster;
    let leader = cluster
        .and_then(|cluster| cluster.leader)
        .expect("a leader");
    nats.servers.kill_node(Servers::node(&leader));
    for start in [10, 20, 30] {
        publish_part(&mut writer, output(0, 1, start..start + 10)).await;
        let piece = next_bytes(&mut reader, 10).await;
        assert_eq!(piece, output(0, 1, start..start + 10));
    }
    respond_whole(&producer, &claim, writer).await;
    assert_eq!(rest(reader).await, (Vec::new(), false));
}

/// Prints how long a piece takes from its flush to a reader in another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, and checks nothing"]
async fn latency_to_another_process() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    publish_part(&mut writer, Bytes::from_static(b"0")).await;
    let mut reader = body(&other, id, 0).await;
    next_bytes(&mut reader, 1).await;
    let mut times = Vec::new();
    for _ in 0..500 {
        let flushed = Instant::now();
        publish_part(&mut writer, Bytes::from_static(b"a token of a few bytes")).await;
        next_bytes(&mut reader, 22).await;
        times.push(flushed.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    times.sort();
    println!(
        "p50 {:?}, p99 {:?}, max {:?}",
        times[249], times[494], times[499]
    );
}
