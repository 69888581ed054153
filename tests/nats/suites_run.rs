//! The checks of stores and the suite of routes, in JetStream.

use std::{sync::Mutex, time::Duration};

use futures_util::{StreamExt, stream};
use http::{Request, Response};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{
    Jobs, JobsBuilder, When,
    store::{
        conformance,
        nats::{NatsOptions, NatsStore},
    },
};

use crate::{
    site::{Deployment, options, registry},
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
    },
    support::Body,
};

/// The number of checks that run at a time: they mostly wait for leases.
const CONCURRENT_CHECKS: usize = 8;

#[tokio::test]
async fn store_in_jetstream_keeps_its_promises() {
    if Deployment::start(options()).await.is_none() {
        return;
    }
    run(conformance::queue_checks(), options()).await;
}

#[tokio::test]
async fn outbox_in_jetstream_keeps_its_promises() {
    if Deployment::start(options()).await.is_none() {
        return;
    }
    run(conformance::outbox_checks(), options()).await;
}

#[tokio::test]
async fn store_in_jetstream_keeps_keys_of_expired_jobs() {
    if Deployment::start(options()).await.is_none() {
        return;
    }
    let options = options().retain(Duration::from_secs(1));
    run(conformance::expiry_checks(), options).await;
}

async fn run(checks: Vec<conformance::Check<NatsStore>>, options: NatsOptions) {
    let options = &options;
    let checks = checks.into_iter().map(|check| async move {
        // Each check has a server of its own.
        let nats = Deployment::start(options.clone())
            .await
            .expect("it has started before");
        check.run(nats.store().await).await;
    });
    stream::iter(checks)
        .for_each_concurrent(CONCURRENT_CHECKS, |check| check)
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
