//! Runs the suites of all stores in JetStream.

use std::{cell::RefCell, sync::Mutex, time::Duration};

use http::{Request, Response};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{Jobs, JobsBuilder, When, store::nats::NatsStore};

use crate::{
    server::Servers,
    site::{Deployment, options, registry},
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
        store_suite,
    },
    support::Body,
};

thread_local! {
    /// The servers of this thread's test, which end with it.
    static SERVERS: RefCell<Vec<Servers>> = const { RefCell::new(Vec::new()) };
}

/// Connects a store to a server of its own.
async fn store() -> Option<NatsStore> {
    let nats = Deployment::start(options()).await?;
    let store = nats.store().await;
    SERVERS.with_borrow_mut(|servers| servers.push(nats.servers));
    Some(store)
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

mod stores {
    super::store_suite!((flavor = "current_thread"), super::store);
}

mod routes {
    super::route_suite!((flavor = "current_thread"), super::two_fronts);
}
