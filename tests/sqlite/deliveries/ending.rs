//! Each end of a job records its deliveries, in the same transaction.

use bytes::Bytes;
use tokio::time::Instant;
use tower_accepted::{
    JobId, Snapshot, Status,
    store::{
        Delivery, DeliveryState, Lookup, NewJob, News, Queue, Report, Revisions, Store,
        sqlite::{SqliteError, SqliteStore},
    },
};

use super::steps::{accept, begin, finish, list_all, outbox};
use crate::site::{Home, options, until};

/// Returns the only delivery of a store, which must be of this job.
async fn only(store: &SqliteStore, id: JobId) -> Delivery {
    let all = list_all(&outbox(store)).await;
    let [delivery] = &all[..] else {
        panic!("one delivery: {all:?}");
    };
    assert_eq!(delivery.id.to_string(), format!("{id}_0"));
    assert!(matches!(delivery.state, DeliveryState::Pending(_)));
    delivery.clone()
}

async fn found(store: &SqliteStore, id: JobId) -> Snapshot {
    match store.get(id).await {
        Ok(Lookup::Found(job)) => *job,
        other => panic!("a job: {other:?}"),
    }
}

#[tokio::test]
async fn lost_job_has_a_delivery() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, claim) = accept(&store, "POST").await;
    begin(&store, &claim).await;
    let crashed = home.crash();
    let store = crashed.store().await;
    assert_eq!(only(&store, id).await.event, "job.failed");
    let job = found(&store, id).await;
    assert_eq!(job.error.map(|error| error.code.as_str()), Some("lost"));
}

#[tokio::test]
async fn given_up_job_has_a_delivery() {
    let home = Home::new(options().attempts(1));
    let store = home.store().await;
    let (id, claim) = accept(&store, "PUT").await;
    let report = Report::new(News::Started(Instant::now()));
    store.report(&claim, report).await.unwrap();
    let started = "SELECT count(*) FROM job WHERE started_at IS NOT NULL";
    until(async || home.number(started) == 1).await;
    let crashed = home.crash();
    let store = crashed.store().await;
    assert_eq!(only(&store, id).await.event, "job.failed");
}

#[tokio::test]
async fn job_that_runs_again_has_none() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, _claim) = accept(&store, "PUT").await;
    let crashed = home.crash();
    let store = crashed.store().await;
    assert_eq!(found(&store, id).await.status, Status::Queued);
    assert_eq!(list_all(&outbox(&store)).await, []);
}

#[tokio::test]
async fn dropped_claim_records_a_delivery() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, claim) = accept(&store, "POST").await;
    begin(&store, &claim).await;
    drop(claim);
    until(async || found(&store, id).await.status == Status::Failed).await;
    assert_eq!(only(&store, id).await.event, "job.failed");
}

#[tokio::test]
async fn closed_store_leaves_a_delivery() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, claim) = accept(&store, "POST").await;
    begin(&store, &claim).await;
    drop((store, claim));
    home.closed().await;
    let store = home.store().await;
    assert_eq!(only(&store, id).await.event, "job.failed");
}

#[tokio::test]
async fn unreadable_request_has_a_delivery() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, claim) = accept(&store, "PUT").await;
    drop(claim);
    let waiting = "SELECT count(*) FROM job WHERE process IS NULL";
    until(async || home.number(waiting) == 1).await;
    let spoil = "UPDATE request SET head = x'00'";
    assert_eq!(home.sql().execute(spoil, []).unwrap(), 1);
    let ticket = store.next(1).await.unwrap().pop().expect("a ticket");
    assert!(store.claim(ticket).await.unwrap().is_none());
    assert_eq!(only(&store, id).await.event, "job.failed");
}

#[tokio::test]
async fn deleted_job_leaves_its_delivery() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, _claim) = accept(&store, "POST").await;
    store.forget(id, &Revisions::Any).await.unwrap();
    assert!(matches!(store.get(id).await, Ok(Lookup::Unknown)));
    assert_eq!(only(&store, id).await.event, "job.canceled");
}

#[tokio::test]
async fn expired_job_leaves_its_delivery() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, claim) = accept(&store, "POST").await;
    finish(&store, &claim).await;
    let expire = "UPDATE job SET expires_at = 1";
    assert_eq!(home.sql().execute(expire, []).unwrap(), 1);
    until(async || home.number("SELECT count(*) FROM job") == 0).await;
    assert_eq!(only(&store, id).await.event, "job.succeeded");
}

#[tokio::test]
async fn end_without_its_delivery_is_no_end() {
    let home = Home::new(options());
    let store = home.store().await;
    let (id, _claim) = accept(&store, "POST").await;
    let sql = home.sql();
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON delivery \
         BEGIN SELECT RAISE(ABORT, 'no'); END";
    sql.execute_batch(fail).unwrap();
    let canceled = store.cancel(id, &Revisions::Any).await;
    assert!(matches!(canceled, Err(SqliteError::Database(_))));
    let unfinished = "SELECT count(*) FROM job WHERE finished_at IS NULL";
    assert_eq!(home.number(unfinished), 1);
    sql.execute_batch("DROP TRIGGER fail").unwrap();
    store.cancel(id, &Revisions::Any).await.unwrap();
    assert_eq!(only(&store, id).await.event, "job.canceled");
}

#[tokio::test]
async fn full_file_takes_the_deliveries_of_ends() {
    let mut home = Home::new(options());
    let store = home.store().await;
    let (id, _claim) = accept(&store, "POST").await;
    home.options = options().max_disk_bytes(1);
    let full = home.store().await;
    full.cancel(id, &Revisions::Any).await.unwrap();
    assert_eq!(only(&full, id).await.event, "job.canceled");
    let head = http::Request::new(()).into_parts().0;
    let record = full.record(&head, &Bytes::new(), None);
    let refused = full.accept(&NewJob::new(JobId::random()), record);
    assert!(matches!(refused.await, Err(SqliteError::Full)));
}
