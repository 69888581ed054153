//! The suites of every store, in memory.

use std::{sync::Mutex, time::Duration};

use http::{Request, Response};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{
    Builder, Jobs, When,
    store::{Budget, MemoryStore, Store},
};

use crate::{
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
        store_suite,
    },
    support::Body,
};

async fn store() -> Option<MemoryStore> {
    Some(MemoryStore::new(
        Duration::from_secs(60),
        Budget::new(1 << 26),
    ))
}

/// A site in this process, whose jobs are built by `build`.
pub(crate) struct InProcess<St> {
    build: fn(Builder) -> Jobs<St>,
    jobs: Mutex<Option<Jobs<St>>>,
}

impl<St> InProcess<St> {
    pub(crate) fn new(build: fn(Builder) -> Jobs<St>) -> Self {
        let jobs = Mutex::default();
        Self { build, jobs }
    }
}

impl<St: Store> Site for InProcess<St> {
    async fn serve(&self, builder: Builder, when: When, service: Inner) -> [Outer; 2] {
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

async fn site() -> Option<InProcess<MemoryStore>> {
    Some(InProcess::new(Builder::build))
}

mod stores {
    super::store_suite!((start_paused = true), super::store);
}

mod routes {
    super::route_suite!((start_paused = true), super::site);
}
