//! The outbox: which process sends deliveries, and what becomes of them in other processes.

mod faults;

use std::{
    future::poll_fn,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::timeout;
use tower_accepted::{
    JobId,
    store::{
        Acceptance, Attempt, AttemptFailure, CallbackTarget, Delivery, DeliveryFilter, DeliveryId,
        DeliveryState, End, Finished, NewJob, Outcome, Queue, Revisions, SendRoom, Settlement,
        SharedOutbox, Store, Work, Writer,
        nats::{NatsClaim, NatsError, NatsStore},
    },
};

use crate::{
    site::{Deployment, options, or_skip, until},
    streams::{DELIVERIES, messages, publish, stream},
};

/// The name of the stream that holds a request until its job has ended.
const QUEUE: &str = "accepted_queue";

/// The time after which another process may take a leased delivery: longer than any test.
const LEASE: Duration = Duration::from_secs(600);

const ENDS: [&str; 3] = ["job.succeeded", "job.failed", "job.canceled"];

type NatsOutbox = SharedOutbox<NatsError>;

fn outbox(store: &NatsStore) -> NatsOutbox {
    store.outbox().expect("the store has an outbox")
}

/// Creates a job with three targets. The second one wants no end.
fn new_job() -> NewJob {
    let target = |url: &str, events: &[&str]| {
        CallbackTarget::new(url, events.iter().map(|&event| event.to_owned()))
    };
    let mut job = NewJob::new(JobId::random());
    job.callbacks = Some(
        [
            target("https://one.example/hook?secret", &ENDS),
            target("https://two.example/hook", &["job.started"]),
            target("https://three.example/hook", &ENDS),
        ]
        .into(),
    );
    job
}

async fn accept(store: &NatsStore, new: &NewJob) -> Acceptance<NatsClaim> {
    let (head, ()) = Request::post("/reports").body(()).unwrap().into_parts();
    let record = store.record(&head, &Bytes::new(), None);
    store.accept(new, record).await.unwrap()
}

/// Accepts a job that workers may run.
async fn enqueue(store: &NatsStore) -> JobId {
    let new = new_job();
    assert!(matches!(accept(store, &new).await, Acceptance::Queued));
    new.id
}

/// Accepts a job that this process runs.
async fn run_here(store: &NatsStore) -> (JobId, NatsClaim) {
    let mut new = new_job();
    new.run_here = true;
    match accept(store, &new).await {
        Acceptance::RunHere(claim) => (new.id, claim),
        other => panic!("not accepted: {other:?}"),
    }
}

/// Takes requests from the queue until one may run.
async fn next_work(store: &NatsStore) -> Work<NatsClaim> {
    loop {
        for ticket in store.next(1).await.unwrap() {
            if let Some(work) = store.claim(ticket).await.unwrap() {
                return work;
            }
        }
    }
}

async fn finish(store: &NatsStore, claim: &NatsClaim) -> Finished {
    let (head, ()) = Response::new(()).into_parts();
    let mut writer = store.respond(claim, head, None);
    poll_fn(|cx| writer.poll_room(4, cx)).await.unwrap();
    writer.push(Bytes::from_static(b"done"));
    let end = End::new(Outcome::Response(writer));
    store.finish(claim, end).await.unwrap()
}

/// Ends a job, and returns the ids of its deliveries.
async fn end_one(store: &NatsStore) -> [DeliveryId; 2] {
    let (id, claim) = run_here(store).await;
    assert_eq!(finish(store, &claim).await, Finished::First);
    ids(id)
}

/// Returns the ids of the deliveries of a [`new_job`].
fn ids(job: JobId) -> [DeliveryId; 2] {
    [DeliveryId::new(job, 0), DeliveryId::new(job, 2)]
}

fn room() -> SendRoom {
    SendRoom::new(64, 32, LEASE)
}

/// Takes deliveries until there are `count`, in the order of their ids.
async fn take(outbox: &NatsOutbox, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    let taking = async {
        while all.len() < count {
            let due = outbox.take(room()).await.unwrap();
            if due.deliveries.is_empty() {
                outbox.added().await;
            }
            all.extend(due.deliveries);
        }
    };
    timeout(Duration::from_secs(60), taking)
        .await
        .expect("deliveries are due");
    all.sort_unstable_by_key(|delivery| delivery.id);
    all
}

fn taken_ids(deliveries: &[Delivery]) -> Vec<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

fn refused() -> Settlement {
    let attempt = Attempt::failed(SystemTime::now(), AttemptFailure::Connect);
    Settlement::Failed(attempt)
}

fn delivered() -> Settlement {
    Settlement::Delivered(Attempt::answered(SystemTime::now(), 204))
}

async fn state_of(outbox: &NatsOutbox, id: DeliveryId) -> (DeliveryState, u32) {
    let found = outbox.of_job(id.job()).await.unwrap();
    let delivery = found.iter().find(|delivery| delivery.id == id);
    let delivery = delivery.expect("the delivery exists");
    (delivery.state, delivery.attempts)
}

#[tokio::test]
async fn process_without_a_sender_reads_no_deliveries() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let [first, second] = end_one(&store).await;
    let outbox = outbox(&store);
    assert_eq!(
        taken_ids(&outbox.of_job(first.job()).await.unwrap()),
        [first, second]
    );
    let deliveries = stream(&nats.servers, DELIVERIES).await;
    let state = deliveries.get_info().await.unwrap().state;
    assert_eq!((state.messages, state.consumer_count), (2, 0));
    assert_eq!(outbox.stats().await.unwrap().pending, 0);
    assert_eq!(take(&outbox, 2).await.len(), 2);
    assert_eq!(outbox.stats().await.unwrap().pending, 2);
}

#[tokio::test]
async fn another_process_sends_what_a_dead_one_took() {
    let nats = or_skip!(Deployment::start(options()));
    let (first, second) = (nats.store().await, nats.store().await);
    let ids = end_one(&second).await;
    let taken = take(&outbox(&first), 2).await;
    assert_eq!(taken_ids(&taken), ids);
    let waiting = outbox(&second);
    let due = waiting.take(room()).await.unwrap();
    assert!(due.deliveries.is_empty(), "one process sends at a time");
    drop(first);
    let again = take(&waiting, 2).await;
    assert_eq!(again, taken);
    assert!(!again[0].body.is_empty());
}

#[tokio::test]
async fn cut_off_process_takes_nothing_after_its_lease() {
    let nats = or_skip!(Deployment::start(options()));
    let (wire, cut_off) = nats.store_behind_wire(options()).await;
    let other = nats.store().await;
    let first = end_one(&other).await;
    let (sender, successor) = (outbox(&cut_off), outbox(&other));
    let mut taken = take(&sender, 2).await;
    assert_eq!(taken_ids(&taken), first);
    wire.cut(true);
    assert_eq!(take(&successor, 2).await.len(), 2);
    let due = sender.take(room()).await.unwrap();
    assert!(due.deliveries.is_empty() && due.next_at.is_none());
    assert_eq!(sender.stats().await.unwrap().pending, 0);
    // The connection is back, and the successor keeps its lease.
    wire.cut(false);
    let second = end_one(&other).await;
    taken = take(&successor, 2).await;
    assert_eq!(taken_ids(&taken), second);
    assert!(sender.take(room()).await.unwrap().deliveries.is_empty());
}

#[tokio::test]
#[ignore = "waits for 30 s"]
async fn process_that_takes_nothing_gives_up_its_lease() {
    let nats = or_skip!(Deployment::start(options()));
    let (idle, other) = (nats.store().await, nats.store().await);
    let ids = end_one(&other).await;
    let (drained, sender) = (outbox(&idle), outbox(&other));
    let second = Duration::from_secs(1);
    let take_one = async |outbox: &NatsOutbox| {
        let due = outbox.take(SendRoom::new(1, 1, second)).await.unwrap();
        !due.deliveries.is_empty()
    };
    until(async || take_one(&drained).await).await;
    until(async || take_one(&sender).await).await;
    assert!(!take_one(&drained).await);
    // It competes again once it takes deliveries.
    drop((other, sender));
    until(async || take_one(&drained).await).await;
    assert_eq!(drained.of_job(ids[0].job()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn settlement_after_another_has_no_effect() {
    let nats = or_skip!(Deployment::start(options()));
    let (wire, slow) = nats.store_behind_wire(options()).await;
    let (slow, other) = (outbox(&slow), nats.store().await);
    let [id, late] = end_one(&other).await;
    let taken = take(&slow, 2).await;
    let other = outbox(&other);
    // The other process settles it between the read and the write of the slow one.
    wire.hold_at("MSG.GET.accepted_deliveries");
    let settling = tokio::spawn({
        let (slow, delivery) = (slow.clone(), taken[0].clone());
        async move { slow.settle(&delivery, refused()).await }
    });
    wire.holds("\"subject\":\"accepted.delivery.").await;
    other.settle(&taken[0], delivered()).await.unwrap();
    wire.release();
    settling.await.unwrap().unwrap();
    assert_eq!(state_of(&other, id).await, (DeliveryState::Delivered, 1));
    // Or before both.
    other.settle(&taken[1], refused()).await.unwrap();
    slow.settle(&taken[1], delivered()).await.unwrap();
    assert_eq!(state_of(&other, late).await, (DeliveryState::Failed, 1));
}

#[tokio::test]
async fn delivery_repeated_by_another_process_is_due() {
    let nats = or_skip!(Deployment::start(options()));
    let (sending, other) = (nats.store().await, nats.store().await);
    let [id, done] = end_one(&other).await;
    let (sending, other) = (outbox(&sending), outbox(&other));
    let taken = take(&sending, 2).await;
    sending.settle(&taken[0], refused()).await.unwrap();
    sending.settle(&taken[1], delivered()).await.unwrap();
    assert_eq!(sending.stats().await.unwrap().pending, 0);
    let failed = other.list(&DeliveryFilter::new().failed()).await.unwrap();
    assert_eq!(taken_ids(&failed.deliveries), [id]);
    assert!(failed.deliveries[0].body.is_empty());
    assert!(!other.redeliver(done).await.unwrap());
    assert!(other.redeliver(id).await.unwrap());
    let again = take(&sending, 1).await.remove(0);
    assert_eq!((again.id, again.attempts), (id, 0));
    assert_eq!(again.body, taken[0].body);
}

#[tokio::test]
async fn dropped_take_leases_nothing() {
    let nats = or_skip!(Deployment::start(options()));
    let (wire, store) = nats.store_behind_wire(options()).await;
    let outbox = outbox(&store);
    let ids = end_one(&store).await;
    until(async || {
        outbox.stats().await.unwrap().pending == 2 || {
            // Starts the outbox, and has no room for a delivery.
            let none = SendRoom::new(0, 0, LEASE);
            let _ = outbox.take(none).await.unwrap();
            false
        }
    })
    .await;
    wire.hold_at("MSG.GET.accepted_deliveries");
    let taking = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.take(room()).await }
    });
    wire.held().await;
    taking.abort();
    assert!(taking.await.unwrap_err().is_cancelled());
    wire.release();
    assert_eq!(taken_ids(&take(&outbox, 2).await), ids);
}

#[tokio::test]
async fn repeated_request_records_no_delivery_anew() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let id = enqueue(&store).await;
    let queue = stream(&nats.servers, QUEUE).await;
    let requests = messages(&queue).await;
    let work = next_work(&store).await;
    assert_eq!(finish(&store, &work.claim).await, Finished::First);
    let outbox = outbox(&store);
    for delivery in take(&outbox, 2).await {
        outbox.settle(&delivery, delivered()).await.unwrap();
    }
    // As if the process had died before it removed the request.
    publish(&nats.servers, requests).await;
    for ticket in store.next(1).await.unwrap() {
        assert!(store.claim(ticket).await.unwrap().is_none());
    }
    until(async || queue.get_info().await.unwrap().state.messages == 0).await;
    for id in ids(id) {
        assert_eq!(state_of(&outbox, id).await, (DeliveryState::Delivered, 1));
    }
}

#[tokio::test]
async fn forgotten_job_records_no_second_delivery() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let [id, _] = end_one(&store).await;
    // As a day after the receivers have taken them.
    let deliveries = stream(&nats.servers, DELIVERIES).await;
    deliveries.purge().await.unwrap();
    store.forget(id.job(), &Revisions::Any).await.unwrap();
    assert_eq!(outbox(&store).of_job(id.job()).await.unwrap(), []);
}

#[tokio::test]
async fn full_stream_of_deliveries_holds_up_no_job() {
    let nats = or_skip!(Deployment::start(options()));
    let store = nats.store().await;
    let mut deliveries = stream(&nats.servers, DELIVERIES).await;
    let mut config = deliveries.info().await.unwrap().config.clone();
    // An operator has set a limit.
    config.max_bytes = 1;
    let client = nats.servers.client().await;
    let jetstream = async_nats::jetstream::new(client);
    jetstream.update_stream(config).await.unwrap();
    let [id, _] = end_one(&store).await;
    assert_eq!(outbox(&store).of_job(id.job()).await.unwrap(), []);
    let queue = stream(&nats.servers, QUEUE).await;
    until(async || queue.get_info().await.unwrap().state.messages == 0).await;
}
