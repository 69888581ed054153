//! The checks of stores and the suite of routes, in SQLite.

use std::{sync::Mutex, time::Duration};

use futures_util::{StreamExt, stream};
use http::{Request, Response};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{
    Jobs, JobsBuilder, When,
    store::{
        conformance,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

use crate::{
    site::{Home, options, registry},
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
    },
    support::Body,
};

/// The number of checks that run at a time: they mostly wait.
const CONCURRENT_CHECKS: usize = 8;

#[tokio::test]
async fn store_in_sqlite_keeps_its_promises() {
    run(conformance::queue_checks(), options()).await;
}

#[tokio::test]
async fn store_in_sqlite_keeps_keys_of_expired_jobs() {
    let options = options().retain(Duration::from_secs(1));
    run(conformance::expiry_checks(), options).await;
}

#[tokio::test]
async fn store_in_sqlite_records_deliveries() {
    run(conformance::outbox_checks(), options()).await;
}

async fn run(checks: Vec<conformance::Check<SqliteStore>>, options: SqliteOptions) {
    let options = &options;
    let checks = checks.into_iter().map(|check| async move {
        // Each check has a file of its own.
        let home = Home::new(options.clone());
        check.run(home.store().await).await;
    });
    stream::iter(checks)
        .for_each_concurrent(CONCURRENT_CHECKS, |check| check)
        .await;
}

/// Two processes on one file.
struct TwoProcesses {
    home: Home,
    processes: Mutex<Vec<Jobs<SqliteStore>>>,
    workers: Mutex<JoinSet<()>>,
}

async fn two_processes() -> Option<TwoProcesses> {
    Some(TwoProcesses {
        home: Home::new(options()),
        processes: Mutex::default(),
        workers: Mutex::default(),
    })
}

impl Site for TwoProcesses {
    async fn serve(&self, builder: JobsBuilder, when: When, service: Inner) -> [Outer; 2] {
        let mut served = Vec::new();
        for _ in 0..2 {
            let jobs = registry(builder.clone(), self.home.store().await);
            let worker = jobs.worker::<_, Body>(service.clone());
            self.workers.lock().unwrap().spawn(worker.run());
            let layered = jobs.layer().when(when).layer(service.clone());
            let layered = layered.map_response(|response: Response<_>| response.map(Body::new));
            let layered = layered.map_request(|request: Request<Body>| request);
            served.push(BoxCloneSyncService::new(layered));
            self.processes.lock().unwrap().push(jobs);
        }
        served.try_into().unwrap()
    }

    async fn drain(&self) {
        let processes = self.processes.lock().unwrap().clone();
        for jobs in processes {
            jobs.drain(Duration::ZERO).await;
        }
    }
}

mod routes {
    super::route_suite!((flavor = "current_thread"), super::two_processes);
}
