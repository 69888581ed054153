//! Two processes share the deliveries of one file.

use std::{
    collections::BTreeSet,
    fs::File,
    time::{Duration, SystemTime},
};

#[cfg(feature = "webhook")]
use tokio::net::TcpListener;
use tokio::{join, time::timeout};
use tower_accepted::store::{
    Attempt, Delivery, DeliveryState, Revisions, SendRoom, Settlement, SharedOutbox, Store,
    sqlite::SqliteError,
};
#[cfg(feature = "webhook")]
use tower_accepted::{
    Jobs,
    webhook::{Secret, Webhooks},
};

use super::steps::{
    LONG_LEASE, SHORT_LEASE, URL, accept, deliver, ended_for, list_all, outbox, take_all, take_one,
};
use crate::site::{Home, options, until};

/// The time after which a step that must complete fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Leases a few deliveries at a time, until none is left.
async fn take_in_steps(outbox: &SharedOutbox<SqliteError>) -> Vec<Delivery> {
    let mut all = Vec::new();
    loop {
        let room = SendRoom::new(7, 3, LONG_LEASE);
        let taken = outbox.take(room).await.expect("a lease").deliveries;
        if taken.is_empty() {
            return all;
        }
        all.extend(taken);
    }
}

fn failed() -> Attempt {
    Attempt::answered(SystemTime::now(), 503)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_lease_each_delivery_once() {
    let home = Home::new(options());
    let stores = [home.store().await, home.store().await];
    let mut jobs = BTreeSet::new();
    for number in 0..60 {
        let url = format!("https://receiver-{}.example/", number % 5);
        jobs.insert(ended_for(&stores[number % 2], &url).await);
    }
    let [one, other] = stores.each_ref().map(outbox);
    let (ones, others) = join!(take_in_steps(&one), take_in_steps(&other));
    assert_eq!(ones.len() + others.len(), jobs.len());
    let leased = ones.iter().chain(&others);
    let leased: BTreeSet<_> = leased.map(|delivery| delivery.id.job()).collect();
    assert_eq!(leased, jobs);
}

#[tokio::test]
async fn ended_lease_is_taken_by_another_process() {
    let home = Home::new(options());
    let [one, other] = [home.store().await, home.store().await];
    ended_for(&one, URL).await;
    let [one, other] = [one, other].each_ref().map(outbox);
    let early = take_one(&one, SHORT_LEASE).await;
    let mut taken = Vec::new();
    until(async || {
        taken = take_all(&other, LONG_LEASE).await;
        !taken.is_empty()
    })
    .await;
    assert_eq!((taken[0].id, &taken[0].body), (early.id, &early.body));
    let later = SystemTime::now() + LONG_LEASE;
    let retry = Settlement::Retry(failed(), later);
    other.settle(&taken[0], retry).await.unwrap();
    // The lease of the first one has ended, and what it does has no effect.
    deliver(&one, &early).await;
    one.settle(&early, Settlement::Release).await.unwrap();
    let [delivery] = &list_all(&one).await[..] else {
        panic!("one delivery");
    };
    assert_eq!(delivery.attempts, 1);
    let due = delivery.due_at().expect("a pending delivery");
    assert!(due > SystemTime::now() + LONG_LEASE / 2);
}

/// Without a release, the other process would wait for the end of the lease: a minute.
#[cfg(feature = "webhook")]
#[tokio::test]
async fn drain_releases_what_it_cuts_off() {
    let home = Home::new(options());
    let [one, other] = [home.store().await, home.store().await];
    // It accepts connections, and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let webhooks = Webhooks::new()
        .secret(Secret::generate())
        .insecure_for_development();
    let jobs = Jobs::builder().store(one).webhooks(webhooks).build();
    ended_for(&other, &url).await;
    let connection = timeout(TIMEOUT, silent.accept()).await;
    let _connection = connection.expect("an attempt").unwrap();
    let other = outbox(&other);
    assert!(take_all(&other, LONG_LEASE).await.is_empty());
    jobs.drain(Duration::from_millis(50)).await;
    assert_eq!(take_all(&other, LONG_LEASE).await.len(), 1);
}

#[tokio::test]
async fn sender_learns_of_the_other_process() {
    let home = Home::new(options());
    let [one, other] = [home.store().await, home.store().await];
    // A delivery that ends, one that is redelivered, and one that is released.
    ended_for(&one, URL).await;
    let [one, other] = [one, other].each_ref().map(outbox);
    let learn = async || {
        let added = timeout(TIMEOUT, other.added()).await;
        added.expect("a notification");
        take_one(&other, LONG_LEASE).await
    };
    let delivery = learn().await;
    assert!(one.redeliver(delivery.id).await.unwrap());
    let again = learn().await;
    assert_eq!(again.id, delivery.id);
    one.settle(&again, Settlement::Release).await.unwrap();
    assert_eq!(learn().await.id, delivery.id);
}

#[tokio::test]
async fn take_of_nothing_takes_no_turn() {
    let home = Home::new(options());
    let store = home.store().await;
    ended_for(&store, URL).await;
    let outbox = outbox(&store);
    let delivery = take_one(&outbox, LONG_LEASE).await;
    let later = SystemTime::now() + LONG_LEASE;
    let retry = Settlement::Retry(failed(), later);
    outbox.settle(&delivery, retry).await.unwrap();
    let turn = File::open(home.directory().join("jobs.db-turn")).unwrap();
    turn.lock().unwrap();
    let room = SendRoom::new(8, 8, LONG_LEASE);
    let taken = timeout(TIMEOUT, outbox.take(room)).await;
    let taken = taken.expect("an answer").expect("no error");
    assert_eq!(taken.deliveries, []);
    let next_at = taken.next_at.expect("the time of the next attempt");
    assert!(later.duration_since(next_at).unwrap() < Duration::from_millis(1));
    turn.unlock().unwrap();
}

#[tokio::test]
async fn receivers_come_in_the_order_of_their_first() {
    let home = Home::new(options());
    let store = home.store().await;
    for name in ["zoo", "zoo", "ant", "bee"] {
        ended_for(&store, &format!("https://{name}.example/")).await;
    }
    // Each in a millisecond of its own.
    let spread = "UPDATE delivery SET due_at = seq";
    assert_eq!(home.sql().execute(spread, []).unwrap(), 4);
    let outbox = outbox(&store);
    let room = SendRoom::new(4, 1, LONG_LEASE);
    let taken = outbox.take(room).await.unwrap().deliveries;
    // Half of the room is for receivers that took their last delivery.
    let urls: Vec<&str> = taken.iter().map(|delivery| &*delivery.url).collect();
    assert_eq!(urls, ["https://zoo.example/", "https://ant.example/"]);
}

#[tokio::test]
async fn lease_is_the_time_of_the_next_look() {
    let home = Home::new(options());
    let store = home.store().await;
    ended_for(&store, URL).await;
    let outbox = outbox(&store);
    let before = SystemTime::now();
    let room = SendRoom::new(8, 8, LONG_LEASE);
    let taken = outbox.take(room).await.unwrap();
    assert_eq!(taken.deliveries.len(), 1);
    // If this process hangs, another look finds the delivery.
    let next_at = taken.next_at.expect("the end of the lease");
    let lease = next_at.duration_since(before).unwrap();
    assert!(lease >= LONG_LEASE - Duration::from_millis(1) && lease < LONG_LEASE * 2);
}

#[tokio::test]
async fn observer_lists_and_repeats_and_takes_nothing() {
    let mut home = Home::new(options());
    let store = home.store().await;
    let (id, _claim) = accept(&store, "POST").await;
    home.options = options().observer();
    let observer = home.store().await;
    let observed = outbox(&observer);
    observer.cancel(id, &Revisions::Any).await.unwrap();
    assert_eq!(take_all(&observed, LONG_LEASE).await, []);
    let outbox = outbox(&store);
    let delivery = take_one(&outbox, LONG_LEASE).await;
    outbox
        .settle(&delivery, Settlement::Failed(failed()))
        .await
        .unwrap();
    let listed = list_all(&observed).await;
    assert_eq!(listed[0].state, DeliveryState::Failed);
    assert_eq!(observed.stats().await.unwrap().pending, 0);
    assert!(observed.redeliver(delivery.id).await.unwrap());
    assert_eq!(take_one(&outbox, LONG_LEASE).await.id, delivery.id);
}
