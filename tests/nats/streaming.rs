//! Responses that are read while they are produced, by another process than the one that runs the
//! call.

use std::{
    collections::HashMap,
    future::poll_fn,
    ops::Range,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    join,
    time::{sleep, timeout},
};
use tower_accepted::{
    ErrorCode, JobId, Snapshot, Status,
    store::{
        Acceptance, End, Finished, Lookup, NewJob, Outcome, Purpose, Queue, Reading, ResultBody,
        Revisions, Store, Work, Writer,
        nats::{NatsClaim, NatsStore, NatsWriter},
    },
};

use crate::{
    chaos::shared::number,
    site::{Deployment, options, or_skip, until},
    streams::{RESULTS, messages, publish, stream},
};

/// The time limit of a step. Only a failure takes that long.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of cases in which a producer dies, and of those at a time.
const CASES: u64 = 100;
const CONCURRENT_CASES: usize = 25;

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
async fn part_of_a_dead_process_is_readable_until_the_job_runs_again() {
    let nats = or_skip!(Deployment::start(options()));
    let [first, second, other] = [nats.store().await, nats.store().await, nats.store().await];
    let id = JobId::random();
    enqueue(&first, id).await;
    let work = claim_next(&first).await;
    let mut writer = respond(&first, &work.claim);
    publish_part(&mut writer, output(0, 1, 0..500)).await;
    let mut early = body(&other, id, 100).await;
    assert_eq!(next_bytes(&mut early, 400).await, output(0, 1, 100..500));
    // The process dies.
    drop((writer, work));
    let reading = read(&other, id, 0).await.expect("a part");
    assert_eq!((reading.run, reading.available), (1, 500));
    let mut late = reading.response.into_body();
    assert_eq!(next_bytes(&mut late, 500).await, output(0, 1, 0..500));
    assert!(next_data(&mut late).now_or_never().is_none());

    let work = claim_next(&second).await;
    assert_eq!(work.attempt, 2);
    let mut writer = respond(&second, &work.claim);
    publish_part(&mut writer, output(0, 2, 0..300)).await;
    for reader in [early, late] {
        assert_eq!(rest(reader).await, (Vec::new(), true));
    }
    let reading = read(&other, id, 7).await.expect("a part");
    assert_eq!(reading.run, 2);
    // The parts of the first call are removed, and the second call has one part.
    until(async || stored_messages(&nats).await == 1).await;
    respond_whole(&second, &work.claim, writer).await;
    let result = rest(reading.response.into_body()).await;
    assert_eq!(result, (output(0, 2, 7..300).to_vec(), false));
    assert_eq!(stored_messages(&nats).await, 1);
}

#[tokio::test]
async fn part_of_a_lost_job_is_readable() {
    let nats = or_skip!(Deployment::start(options()));
    let (first, second) = (nats.store().await, nats.store().await);
    let new = NewJob::new(JobId::random());
    let accepted = accept(&first, &new, Method::POST).await;
    assert!(matches!(accepted, Acceptance::Queued));
    let work = claim_next(&first).await;
    let mut writer = respond(&first, &work.claim);
    publish_part(&mut writer, output(0, 1, 0..70_000)).await;
    publish_part(&mut writer, output(0, 1, 70_000..90_000)).await;
    let mut early = body(&second, new.id, 0).await;
    assert!(next_bytes(&mut early, 90_000).await == output(0, 1, 0..90_000));
    drop((writer, work));
    until(async || {
        for ticket in second.next(1).await.unwrap() {
            assert!(second.claim(ticket).await.unwrap().is_none());
        }
        snapshot(&second, new.id).await.status.is_ended()
    })
    .await;
    let job = snapshot(&second, new.id).await;
    assert_eq!(job.error.map(|failure| failure.code), Some(ErrorCode::Lost));
    assert_eq!(job.partial.map(|part| part.content_length), Some(90_000));
    assert_eq!(rest(early).await, (Vec::new(), true));
    let part = rest(body(&second, new.id, 80_000).await).await;
    assert!(part == (output(0, 1, 80_000..90_000).to_vec(), true));
}

#[tokio::test]
async fn output_of_a_requeued_job_is_removed() {
    let nats = or_skip!(Deployment::start(options()));
    let (first, second) = (nats.store().await, nats.store().await);
    let id = JobId::random();
    enqueue(&first, id).await;
    let work = claim_next(&first).await;
    let mut writer = respond(&first, &work.claim);
    publish_part(&mut writer, output(0, 1, 0..500)).await;
    let mut early = body(&second, id, 0).await;
    assert_eq!(next_bytes(&mut early, 500).await, output(0, 1, 0..500));
    drop(writer);
    let end = End::new(Outcome::NoResponse(ErrorCode::Shutdown));
    let finished = first.finish(&work.claim, end).await.unwrap();
    assert_eq!(finished, Finished::HandedBack);
    assert_eq!(stored_messages(&nats).await, 0);
    assert_eq!(rest(early).await, (Vec::new(), true));
    let mut waiting = pin!(second.read(id, 0));
    assert!(waiting.as_mut().now_or_never().is_none());
    let work = claim_next(&second).await;
    let mut writer = respond(&second, &work.claim);
    publish_part(&mut writer, output(0, 2, 0..5)).await;
    let reading = timeout(STEP_TIMEOUT, waiting).await.unwrap().unwrap();
    let reading = reading.expect("a response");
    assert_eq!(reading.run, 2);
    respond_whole(&second, &work.claim, writer).await;
    let result = rest(reading.response.into_body()).await;
    assert_eq!(result, (output(0, 2, 0..5).to_vec(), false));
}

/// A cancel in another process decides which part is the last one.
#[tokio::test]
async fn no_reader_gets_more_than_the_part_of_a_canceled_job() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    for pieces in 0..30 {
        let (id, claim) = claim_new(&producer).await;
        let mut writer = respond(&producer, &claim);
        publish_part(&mut writer, output(pieces, 1, 0..10)).await;
        let reader = body(&other, id, 0).await;
        let producing = async {
            let mut at = 10;
            let canceled = poll_fn(|cx| producer.poll_canceled(&claim, cx));
            let mut canceled = pin!(canceled);
            while canceled.as_mut().now_or_never().is_none() {
                publish_part(&mut writer, output(pieces, 1, at..at + 10)).await;
                at += 10;
                sleep(Duration::from_micros(100)).await;
            }
            drop(writer);
            let end = End::new(Outcome::NoResponse(ErrorCode::Canceled));
            producer.finish(&claim, end).await.unwrap()
        };
        let canceling = async {
            sleep(Duration::from_micros(pieces * 300)).await;
            other.cancel(id, &Revisions::Any).await.unwrap()
        };
        let (finished, canceled, (read, is_broken)) = join!(producing, canceling, rest(reader));
        assert_eq!(finished, Finished::Late);
        let canceled = canceled.and_then(Lookup::found).expect("the job");
        let part = canceled.partial.expect("a part").content_length as usize;
        assert!(is_broken);
        assert_eq!(read.len(), part);
        assert_eq!(read, output(pieces, 1, 0..part));
        let again = rest(body(&producer, id, 0).await).await;
        assert_eq!(again, (read, true));
    }
}

#[tokio::test]
async fn deleted_job_leaves_no_output() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    // A result, a part of one, and the output of a running call.
    for (is_ended, is_whole) in [(true, true), (true, false), (false, false)] {
        let (id, claim) = claim_new(&producer).await;
        let mut writer = respond(&producer, &claim);
        for start in 0..20 {
            publish_part(&mut writer, output(0, 1, start..start + 1)).await;
        }
        let mut reader = body(&other, id, 0).await;
        next_bytes(&mut reader, 20).await;
        let failed = || End::new(Outcome::NoResponse(ErrorCode::BodyError));
        let mut writer = Some(writer);
        if is_ended {
            let end = match writer.take().filter(|_| is_whole) {
                Some(writer) => End::new(Outcome::Response(writer)),
                None => failed(),
            };
            let finished = producer.finish(&claim, end).await.unwrap();
            assert_eq!(finished, Finished::First);
            assert!(stored_messages(&nats).await > 0);
        }
        other.forget(id, &Revisions::Any).await.unwrap();
        if !is_ended {
            assert_eq!(rest(reader).await, (Vec::new(), true));
            drop(writer);
            let finished = producer.finish(&claim, failed()).await.unwrap();
            assert_eq!(finished, Finished::Late);
        }
        assert_eq!(stored_messages(&nats).await, 0);
        assert!(read(&other, id, 0).await.is_none());
    }
}

#[tokio::test]
async fn output_outlasts_its_call_and_expires_with_its_job() {
    let nats = or_skip!(Deployment::start(options().retain(Duration::from_secs(2))));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    let whole = output(0, 1, 0..1_000);
    publish_part(&mut writer, whole.slice(..500)).await;
    // What is not written again expires while the call runs.
    let unrenewed = "accepted.result.unrenewed.0.0".to_owned();
    publish(&nats.servers, vec![(unrenewed.clone(), Bytes::new())]).await;
    let results = stream(&nats.servers, RESULTS).await;
    until(async || {
        let found = results.get_last_raw_message_by_subject(&unrenewed).await;
        found.is_err()
    })
    .await;
    let mut reader = body(&other, id, 0).await;
    assert_eq!(next_bytes(&mut reader, 500).await, whole[..500]);
    write(&mut writer, whole.slice(500..)).await;
    respond_whole(&producer, &claim, writer).await;
    assert_eq!(rest(reader).await, (whole[500..].to_vec(), false));
    drop(claim);
    // Whole for as long as there is a job.
    until(async || match read(&other, id, 0).await {
        Some(reading) => {
            let result = rest(reading.response.into_body()).await;
            assert_eq!(result, (whole.to_vec(), false));
            false
        }
        None => true,
    })
    .await;
    until(async || stored_messages(&nats).await == 0).await;
}

/// Says what the producers of a case do.
struct Plan {
    case: u64,
    /// The lengths of the pieces of each call. All but the last call die, or are handed back.
    calls: Vec<Vec<usize>>,
    is_handed_back: bool,
}

impl Plan {
    fn random(case: u64, random: &mut StdRng) -> Self {
        let calls = random.random_range(2..=3);
        let calls = (0..calls).map(|_| {
            let pieces = random.random_range(1..8);
            (0..pieces)
                .map(|_| match random.random_range(0..10) {
                    0 => random.random_range(0..400_000),
                    1..4 => random.random_range(0..10_000),
                    _ => random.random_range(0..100),
                })
                .collect()
        });
        Self {
            case,
            calls: calls.collect(),
            is_handed_back: random.random_ratio(1, 3),
        }
    }

    fn length(&self, run: u32) -> usize {
        self.calls[run as usize - 1].iter().sum()
    }
}

/// Runs the calls of all cases until they are aborted.
async fn run_calls(store: NatsStore, plans: Arc<Mutex<HashMap<JobId, Arc<Plan>>>>) {
    loop {
        for ticket in store.next(8).await.unwrap() {
            let (store, plans) = (store.clone(), plans.clone());
            tokio::spawn(async move {
                if let Some(work) = store.claim(ticket).await.unwrap() {
                    let plan = plans.lock()[&work.id].clone();
                    run_call(&store, &plan, work).await;
                }
            });
        }
    }
}

async fn run_call(store: &NatsStore, plan: &Plan, work: Work<NatsClaim>) {
    let run = work.attempt;
    let mut writer = respond(store, &work.claim);
    let mut at = 0;
    for length in &plan.calls[run as usize - 1] {
        publish_part(&mut writer, output(plan.case, run, at..at + length)).await;
        at += length;
        sleep(Duration::from_millis(at as u64 % 7)).await;
    }
    if run as usize == plan.calls.len() {
        assert_eq!(
            respond_whole(store, &work.claim, writer).await,
            Finished::First
        );
    } else if plan.is_handed_back {
        drop(writer);
        let end = End::new(Outcome::NoResponse(ErrorCode::Shutdown));
        let finished = store.finish(&work.claim, end).await.unwrap();
        assert_eq!(finished, Finished::HandedBack);
    }
    // Otherwise the process dies: what is in flight may or may not be stored.
}

/// Reads the output of a case as clients do that lose their connection and resume. Returns the
/// number of runs that it has seen.
async fn resume(store: &NatsStore, id: JobId, plan: &Plan, mut random: StdRng) -> usize {
    let (mut run, mut at, mut runs) = (0, 0, 0);
    loop {
        let reading = read(store, id, at).await.expect("a response");
        if reading.run != run {
            assert!(reading.run > run, "an earlier run than {run}");
            runs += 1;
            run = reading.run;
            // Resumes anywhere, as a client that has lost what it knew.
            at = random.random_range(0..=plan.length(run));
            continue;
        }
        assert!(reading.available as usize <= plan.length(run));
        let mut body = reading.response.into_body();
        let mut frames = random.random_range(1..6);
        let end = loop {
            if frames == 0 {
                break None;
            }
            frames -= 1;
            match timeout(STEP_TIMEOUT, body.frame()).await.unwrap() {
                Some(Ok(frame)) => {
                    let data = frame.into_data().expect("no trailers");
                    let expected = output(plan.case, run, at..at + data.len());
                    assert!(data == expected, "other bytes at {at} of run {run}");
                    at += data.len();
                }
                other => break Some(other),
            }
        };
        match end {
            Some(None) => {
                assert_eq!((run as usize, at), (plan.calls.len(), plan.length(run)));
                return runs;
            }
            Some(Some(Err(_))) | None => {}
            Some(Some(Ok(_))) => unreachable!("frames go on"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_gets_bytes_of_two_calls() {
    let nats = or_skip!(Deployment::start(options()));
    let cases = number("ACCEPTED_STREAM_CASES").unwrap_or(CASES);
    let seed = number("ACCEPTED_STREAM_SEED").unwrap_or(7);
    println!("{cases} cases, ACCEPTED_STREAM_SEED={seed}");
    let plans = Arc::default();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        workers.spawn(run_calls(nats.store().await, Arc::clone(&plans)));
    }
    let (front, others) = (nats.store().await, [nats.store().await, nats.store().await]);
    let runs = stream::iter(0..cases).map(|case| {
        let (front, others, plans) = (&front, &others, &plans);
        async move {
            let mut random = StdRng::seed_from_u64(seed ^ (case << 16));
            let (id, plan) = (JobId::random(), Arc::new(Plan::random(case, &mut random)));
            plans.lock().insert(id, plan.clone());
            enqueue(front, id).await;
            let readers = (0..4).map(|reader| {
                let random = StdRng::seed_from_u64(random.random());
                resume(&others[reader % 2], id, &plan, random)
            });
            let readers: Vec<_> = readers.collect();
            let runs = join_all(readers).await;
            for from in [0, plan.length(plan.calls.len() as u32) / 2] {
                let last = plan.calls.len() as u32;
                let result = rest(body(front, id, from).await).await;
                let whole = output(case, last, from..plan.length(last));
                assert!(result == (whole.to_vec(), false), "case {case}");
            }
            runs.into_iter().max().unwrap_or(0)
        }
    });
    let runs: Vec<usize> = runs.buffer_unordered(CONCURRENT_CASES).collect().await;
    let seen = runs.iter().filter(|runs| **runs > 1).count();
    println!("readers have seen two or more runs in {seen} cases");
    assert!(seen * 2 > runs.len(), "most cases have readers of two runs");
    workers.shutdown().await;
    until(async || {
        [&front, &others[0], &others[1]]
            .iter()
            .all(|store| store.budget().used() == 0)
    })
    .await;
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
