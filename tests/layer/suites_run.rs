//! The suites of every store, in memory.

use std::{sync::Mutex, time::Duration};

use http::{Request, Response};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{
    Builder, Jobs, When,
    store::{Budget, MemoryStore},
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

#[derive(Default)]
struct Memory {
    jobs: Mutex<Option<Jobs>>,
}

async fn site() -> Option<Memory> {
    Some(Memory::default())
}

impl Site for Memory {
    async fn serve(&self, builder: Builder, when: When, service: Inner) -> [Outer; 2] {
        let jobs = builder.build();
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

mod stores {
    super::store_suite!((start_paused = true), super::store);
}

mod routes {
    super::route_suite!((start_paused = true), super::site);
}
