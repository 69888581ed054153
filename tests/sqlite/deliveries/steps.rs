//! Steps that several tests of deliveries use.

use std::{
    future::poll_fn,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::Response;
use tower_accepted::{
    JobId,
    store::{
        Acceptance, Attempt, CallbackTarget, Delivery, DeliveryFilter, End, NewJob, Outcome,
        SendRoom, Settlement, SharedOutbox, Store,
        sqlite::{SqliteClaim, SqliteError, SqliteStore},
    },
};

use crate::support::request;

/// A lease that does not end during a test.
pub(crate) const LONG_LEASE: Duration = Duration::from_secs(600);

/// A lease that ends at once.
pub(crate) const SHORT_LEASE: Duration = Duration::from_millis(1);

/// The URL of the receiver, whose query is a secret.
pub(crate) const URL: &str = "https://receiver.example/hook?secret=1#part";

pub(crate) fn outbox(store: &SqliteStore) -> SharedOutbox<SqliteError> {
    store.outbox().expect("an outbox")
}

/// Accepts a request that notifies [`URL`] of its end.
pub(crate) async fn accept(store: &SqliteStore, method: &str) -> (JobId, SqliteClaim) {
    accept_for(store, method, URL).await
}

/// Accepts a request that notifies this URL of its end.
pub(crate) async fn accept_for(
    store: &SqliteStore,
    method: &str,
    url: &str,
) -> (JobId, SqliteClaim) {
    let (head, ()) = request(method, "/it").map(drop).into_parts();
    let record = store.record(&head, &Bytes::new(), None);
    let mut job = NewJob::new(JobId::random());
    let events = ["job.succeeded", "job.failed", "job.canceled"].map(str::to_owned);
    job.callbacks = Some([CallbackTarget::new(url, events)].into());
    match store.accept(&job, record).await {
        Ok(Acceptance::RunHere(claim)) => (job.id, claim),
        other => panic!("the job is new: {other:?}"),
    }
}

/// Waits until the call of a claim may begin.
pub(crate) async fn begin(store: &SqliteStore, claim: &SqliteClaim) {
    poll_fn(|cx| store.poll_begin(claim, cx)).await;
}

/// Ends a job with an empty response.
pub(crate) async fn finish(store: &SqliteStore, claim: &SqliteClaim) {
    let writer = store.respond(claim, Response::new(()).into_parts().0, None);
    let end = End::new(Outcome::Response(writer));
    store.finish(claim, end).await.expect("an end");
}

/// Accepts a request, and ends its job. Returns the job.
pub(crate) async fn ended_for(store: &SqliteStore, url: &str) -> JobId {
    let (id, claim) = accept_for(store, "POST", url).await;
    finish(store, &claim).await;
    id
}

/// Leases all deliveries that are due.
pub(crate) async fn take_all(outbox: &SharedOutbox<SqliteError>, lease: Duration) -> Vec<Delivery> {
    let room = SendRoom::new(100_000, 100_000, lease);
    outbox.take(room).await.expect("a lease").deliveries
}

/// Leases the only delivery that is due.
pub(crate) async fn take_one(outbox: &SharedOutbox<SqliteError>, lease: Duration) -> Delivery {
    let taken = take_all(outbox, lease).await;
    let [delivery] = &taken[..] else {
        panic!("one delivery: {taken:?}");
    };
    delivery.clone()
}

/// Returns all deliveries, the newest first.
pub(crate) async fn list_all(outbox: &SharedOutbox<SqliteError>) -> Vec<Delivery> {
    let filter = DeliveryFilter::new().limit(100_000);
    outbox.list(&filter).await.expect("a list").deliveries
}

/// Settles a delivery as taken by its receiver.
pub(crate) async fn deliver(outbox: &SharedOutbox<SqliteError>, delivery: &Delivery) {
    let attempt = Attempt::answered(SystemTime::now(), 204);
    let settling = outbox.settle(delivery, Settlement::Delivered(attempt));
    settling.await.expect("a settlement");
}
