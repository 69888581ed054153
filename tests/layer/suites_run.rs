//! The checks of stores and the suite of routes, in memory.

use std::{sync::Mutex, time::Duration};

use http::{Request, Response};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{
    Jobs, JobsBuilder, When,
    store::{MemoryStore, Store},
};

use crate::{
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
    },
    support::Body,
};

/// A site in this process, whose registry `build` creates.
pub(crate) struct InProcess<St> {
    build: fn(JobsBuilder) -> Jobs<St>,
    jobs: Mutex<Option<Jobs<St>>>,
}

impl<St> InProcess<St> {
    pub(crate) fn new(build: fn(JobsBuilder) -> Jobs<St>) -> Self {
        let jobs = Mutex::default();
        Self { build, jobs }
    }
}

impl<St: Store> Site for InProcess<St> {
    async fn serve(&self, builder: JobsBuilder, when: When, service: Inner) -> [Outer; 2] {
        let jobs = (self.build)(builder);
        let layered = jobs.layer().when(when).layer(service);
        let layered = layered.map_response(|response: Response<_>| response.map(Body::new));
        *self.jobs.lock().unwrap() = Some(jobs);
        let layered =
            BoxCloneSyncService::new(layered.map_request(|request: Request<Body>| request));
        [layered.clone(), layered]
    }

    async fn drain(&self) {
        let jobs = self.jobs.lock().unwrap().clone().unwrap();
        jobs.drain(Duration::ZERO).await;
    }
}

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn store_in_memory_keeps_its_promises() {
    use tower_accepted::store::{Budget, conformance};

    let retain = Duration::from_secs(120);
    conformance::run(async || MemoryStore::new(retain, Budget::new(1 << 26))).await;
}

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn store_in_memory_keeps_keys_of_expired_jobs() {
    use tower_accepted::store::{Budget, conformance};

    let retain = Duration::from_secs(2);
    conformance::run_expiry(async || MemoryStore::new(retain, Budget::new(1 << 26))).await;
}

#[cfg(feature = "conformance")]
#[tokio::test]
async fn store_in_memory_records_deliveries() {
    use tower_accepted::store::{Budget, conformance};

    let retain = Duration::from_secs(120);
    // The times at which deliveries are due are those of the system clock.
    for check in conformance::outbox_checks() {
        check
            .run(MemoryStore::new(retain, Budget::new(1 << 26)))
            .await;
    }
}

async fn site() -> Option<InProcess<MemoryStore>> {
    Some(InProcess::new(|builder| builder.build()))
}

mod routes {
    super::route_suite!((start_paused = true), super::site);
}
