//! Processes that are killed (`kill -9`) between the end of a job and its delivery.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;
use tower_accepted::store::{Delivery, DeliveryId, Lookup, Store, sqlite::SqliteStore};

use super::{
    short_lived::{Task, noted, start},
    steps::{LONG_LEASE, deliver, list_all, outbox, take_all},
};
use crate::{
    chaos::shared::number,
    site::{Home, options, until},
};

/// The number of processes that end jobs, unless the environment sets it.
const CASES: u64 = 12;

const SEED: u64 = 11;

/// The number of files of jobs, each with a case at a time.
const FILES: u64 = 4;

/// The longest time before a process is killed that has ended a job, in milliseconds.
const MAX_LIFE_MS: u64 = 20;

#[derive(Debug, Default)]
struct Tally {
    /// The jobs that a killed process has ended.
    finished: usize,
    canceled: usize,
    /// The deliveries whose leases a killed process had.
    leased: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_process_leaves_each_delivery() {
    let cases = number("ACCEPTED_DELIVERY_CASES").unwrap_or(CASES);
    let seed = number("ACCEPTED_DELIVERY_SEED").unwrap_or(SEED);
    let begun = Instant::now();
    let files = (0..FILES).map(|file| {
        let cases = (file..cases).step_by(FILES as usize);
        run_cases(cases.map(move |case| (case, seed.wrapping_add(case << 32))))
    });
    let mut all = Tally::default();
    for tally in join_all(files).await {
        all.finished += tally.finished;
        all.canceled += tally.canceled;
        all.leased += tally.leased;
    }
    println!(
        "ACCEPTED_DELIVERY_SEED={seed}, {cases} cases in {:.1} s: {all:?}",
        begun.elapsed().as_secs_f64()
    );
    assert!((all.finished + all.canceled) as u64 >= cases, "{all:?}");
}

/// Runs cases one after the other on one file.
async fn run_cases(cases: impl Iterator<Item = (u64, u64)>) -> Tally {
    let home = Home::new(options());
    let mut tally = Tally::default();
    for (case, seed) in cases {
        let task = match case / FILES % 2 {
            0 => Task::Finish,
            _ => Task::Cancel,
        };
        run_case(&home, task, seed, &mut tally).await;
    }
    tally
}

async fn run_case(home: &Home, task: Task, seed: u64, tally: &mut Tally) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut process = start(home.directory(), task);
    until(async || !noted(home.directory()).is_empty()).await;
    let life = random.random_range(0..MAX_LIFE_MS);
    sleep(Duration::from_millis(life)).await;
    process.kill();
    let mut leases = Vec::new();
    let ended = noted(home.directory());
    if random.random() {
        // Another process leases the deliveries, and is killed too. That ends its leases.
        let mut process = start(home.directory(), Task::Lease);
        until(async || noted(home.directory()).len() >= ended.len()).await;
        process.kill();
        leases = noted(home.directory());
    }

    let store = home.store().await;
    let outbox = outbox(&store);
    let recorded = list_all(&outbox).await;
    let due: Vec<&Delivery> = recorded.iter().filter(|it| it.due_at().is_some()).collect();
    let mut taken = BTreeMap::new();
    until(async || {
        let more = take_all(&outbox, LONG_LEASE).await.into_iter();
        taken.extend(more.map(|delivery| (delivery.id, delivery)));
        taken.len() == due.len()
    })
    .await;
    check(&store, task, &ended, &taken).await;
    for id in &leases {
        assert!(taken.contains_key(&id.parse().expect("an id")), "{id}");
    }
    // No end is without a delivery, whether the process has noted it or not.
    let silent = "SELECT count(*) FROM job LEFT JOIN delivery ON delivery.job = job.id \
         WHERE (finished_at IS NULL) <> (delivery.job IS NULL)";
    assert_eq!(home.number(silent), 0);
    for delivery in taken.values() {
        deliver(&outbox, delivery).await;
    }
    match task {
        Task::Finish => tally.finished += taken.len(),
        _ => tally.canceled += taken.len(),
    }
    tally.leased += leases.len();
}

/// Checks that each job that was ended has its delivery.
async fn check(
    store: &SqliteStore,
    task: Task,
    ended: &[String],
    taken: &BTreeMap<DeliveryId, Delivery>,
) {
    for id in ended {
        let id = DeliveryId::new(id.parse().expect("an id"), 0);
        assert!(taken.contains_key(&id), "{id}");
    }
    let event = match task {
        Task::Finish => "job.succeeded",
        _ => "job.canceled",
    };
    for delivery in taken.values() {
        let Ok(Lookup::Found(job)) = store.get(delivery.id.job()).await else {
            panic!("a job: {delivery:?}");
        };
        let [expected] = &Delivery::of_end(&job)[..] else {
            panic!("one delivery: {job:?}");
        };
        assert_eq!((delivery.id, &*delivery.event), (expected.id, event));
        assert_eq!(delivery.body, expected.body);
        assert_eq!(delivery.attempts, 0);
    }
}
