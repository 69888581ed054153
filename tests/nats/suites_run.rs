//! The suites of every store, in JetStream.

use std::{sync::Mutex, time::Duration};

use http::{Request, Response};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{Builder, Jobs, When, store::nats::NatsStore};

use crate::{
    server::Servers,
    site::{options, process},
    suites::{
        route_suite,
        routes::{Inner, Outer, Site},
        store_suite,
    },
    support::Body,
};

/// A store, and the server that it is in for as long.
async fn store() -> Option<NatsStore> {
    let servers = Servers::one().await?;
    let store = NatsStore::connect(servers.client().await, options()).await;
    // Ended with the test's thread.
    SERVERS.with_borrow_mut(|kept| kept.push(servers));
    Some(store.unwrap())
}

thread_local! {
    static SERVERS: std::cell::RefCell<Vec<Servers>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Two processes that accept, and one that works.
struct Nats {
    servers: Servers,
    jobs: Mutex<Vec<Jobs<NatsStore>>>,
    workers: Mutex<JoinSet<()>>,
}

async fn site() -> Option<Nats> {
    Some(Nats {
        servers: Servers::one().await?,
        jobs: Mutex::default(),
        workers: Mutex::default(),
    })
}

impl Site for Nats {
    async fn serve(&self, builder: Builder, when: When, service: Inner) -> [Outer; 2] {
        let worker = process(&self.servers, options(), builder.clone()).await;
        let worker = worker.worker::<_, Body>(service.clone());
        self.workers.lock().unwrap().spawn(worker.run());
        let mut served = Vec::new();
        for _ in 0..2 {
            let jobs = process(&self.servers, options(), builder.clone()).await;
            let layered = jobs.layer().when(when).layer(service.clone());
            let layered = layered.map_response(|response: Response<_>| response.map(Body::new));
            let layered = layered.map_request(|request: Request<Body>| request);
            served.push(BoxCloneSyncService::new(layered));
            self.jobs.lock().unwrap().push(jobs);
        }
        served.try_into().unwrap()
    }

    async fn drain(&self) {
        let all = self.jobs.lock().unwrap().clone();
        for jobs in all {
            jobs.drain(Duration::ZERO).await;
        }
    }
}

mod stores {
    super::store_suite!((flavor = "current_thread"), super::store);
}

mod routes {
    super::route_suite!((flavor = "current_thread"), super::site);
}
