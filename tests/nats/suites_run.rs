//! Runs the checks of stores and the suite of routes in JetStream.

use std::{sync::Mutex, time::Duration};

use http::{Request, Response};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{Jobs, JobsBuilder, When, store::nats::NatsStore};

use crate::{
    site::{Deployment, options, registry},
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
    },
    support::Body,
};

/// The number of checks that run at a time. Most of them wait for leases and pulls.
#[cfg(feature = "conformance")]
const CONCURRENT_CHECKS: usize = 8;

#[cfg(feature = "conformance")]
#[tokio::test]
async fn store_in_jetstream_keeps_its_promises() {
    use futures_util::{StreamExt, stream};
    use tower_accepted::store::conformance::queue_checks;

    let Some(nats) = Deployment::start(options()).await else {
        return;
    };
    // One server for all. Each check has streams of its own.
    let checks = stream::iter(queue_checks()).map(async |check| {
        let options = options()
            .prefix(check.name())
            .retain(Duration::from_secs(120));
        let client = nats.servers.client().await;
        let store = NatsStore::connect(client, options).await;
        check.run(store.expect("the store connects")).await;
    });
    checks
        .buffer_unordered(CONCURRENT_CHECKS)
        .for_each(async |()| {})
        .await;
}

/// Two processes that accept, and one that works.
struct TwoFronts {
    nats: Deployment,
    fronts: Mutex<Vec<Jobs<NatsStore>>>,
    workers: Mutex<JoinSet<()>>,
}

async fn two_fronts() -> Option<TwoFronts> {
    Some(TwoFronts {
        nats: Deployment::start(options()).await?,
        fronts: Mutex::default(),
        workers: Mutex::default(),
    })
}

impl Site for TwoFronts {
    async fn serve(&self, builder: JobsBuilder, when: When, service: Inner) -> [Outer; 2] {
        let worker = registry(builder.clone(), self.nats.store().await);
        let worker = worker.worker::<_, Body>(service.clone());
        self.workers.lock().unwrap().spawn(worker.run());
        let mut served = Vec::new();
        for _ in 0..2 {
            let jobs = registry(builder.clone(), self.nats.store().await);
            let layered = jobs.layer().when(when).layer(service.clone());
            let layered = layered.map_response(|response: Response<_>| response.map(Body::new));
            let layered = layered.map_request(|request: Request<Body>| request);
            served.push(BoxCloneSyncService::new(layered));
            self.fronts.lock().unwrap().push(jobs);
        }
        served.try_into().unwrap()
    }

    async fn drain(&self) {
        let fronts = self.fronts.lock().unwrap().clone();
        for jobs in fronts {
            jobs.drain(Duration::ZERO).await;
        }
    }
}

mod routes {
    super::route_suite!((flavor = "current_thread"), super::two_fronts);
}
