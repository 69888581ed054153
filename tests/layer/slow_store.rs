//! The layer on a store that takes its time for everything: as one elsewhere does, but in memory.

use std::{
    convert::Infallible,
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use tokio::task::yield_now;
use tower_accepted::{
    Filter, JobId, Page, Replay,
    store::{
        Acceptance, Budget, Charge, End, Finished, Lookup, MemoryChanges, MemoryClaim, MemoryStore,
        NewJob, Report, Store,
    },
};

use crate::{suites::route_suite, suites_run::InProcess};

/// A store in memory that is ready at the third poll of each of its futures.
#[derive(Clone)]
struct Slow(MemoryStore);

/// What comes of `work`, later.
fn late<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + Unpin + 'static {
    Box::pin(async {
        yield_now().await;
        yield_now().await;
        work.await
    })
}

impl Store for Slow {
    type Error = Infallible;
    type Record = ();
    type Changes = MemoryChanges;
    type Claim = MemoryClaim;

    fn record(&self, _: &Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    fn reserve(&self, bytes: usize) -> Option<Charge> {
        self.0.reserve(bytes)
    }

    fn accept(
        &self,
        job: &NewJob,
        record: (),
    ) -> impl Future<Output = Result<Acceptance<MemoryClaim>, Infallible>> + Send + Unpin + 'static
    {
        let (store, job) = (self.0.clone(), job.clone());
        late(async move { store.accept(&job, record).await })
    }

    fn get(
        &self,
        id: JobId,
    ) -> impl Future<Output = Result<Lookup, Infallible>> + Send + Unpin + 'static {
        let store = self.0.clone();
        late(async move { store.get(id).await })
    }

    fn changes(&self, id: JobId) -> MemoryChanges {
        self.0.changes(id)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, Infallible> {
        yield_now().await;
        self.0.list(filter).await
    }

    async fn result(&self, id: JobId) -> Result<Option<Response<Replay>>, Infallible> {
        yield_now().await;
        self.0.result(id).await
    }

    // These two are done when they are asked for, and heard of later.
    fn report(
        &self,
        claim: &MemoryClaim,
        report: Report,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + Unpin + 'static {
        late(self.0.report(claim, report))
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End,
    ) -> impl Future<Output = Result<Finished, Infallible>> + Send + Unpin + 'static {
        late(self.0.finish(claim, end))
    }

    fn poll_canceled(&self, claim: &MemoryClaim, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_canceled(claim, cx)
    }

    async fn cancel(&self, id: JobId) -> Result<Lookup, Infallible> {
        yield_now().await;
        self.0.cancel(id).await
    }

    async fn forget(&self, id: JobId) -> Result<Lookup, Infallible> {
        yield_now().await;
        self.0.forget(id).await
    }
}

async fn site() -> Option<InProcess<Slow>> {
    Some(InProcess::new(|builder| {
        let store = MemoryStore::new(Duration::from_secs(60), Budget::new(1 << 26));
        builder.build_with(Slow(store))
    }))
}

mod routes {
    super::route_suite!((start_paused = true), super::site);
}
