//! The layer on a store whose futures are not ready at once, as those of a database are.

use std::{
    convert::Infallible,
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, request, response};
use tokio::task::yield_now;
use tower_accepted::{
    Filter, JobId, Page,
    store::{
        Acceptance, Budget, Charge, End, Finished, Lookup, MemoryChanges, MemoryClaim, MemoryStore,
        MemoryWriter, NewJob, NoRoom, Outcome, Purpose, Reading, Report, Store, StoreFuture,
        Writer,
    },
};

use crate::{suites::route_suite, suites_run::InProcess};

/// A store in memory whose futures are ready at their third poll.
#[derive(Clone)]
pub(crate) struct SlowStore(MemoryStore);

impl SlowStore {
    pub(crate) fn new() -> Self {
        Self(MemoryStore::new(
            Duration::from_secs(120),
            Budget::new(1 << 26),
        ))
    }
}

/// Delays `work` by two polls.
fn delay<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> impl StoreFuture<T> {
    Box::pin(async {
        yield_now().await;
        yield_now().await;
        work.await
    })
}

impl Store for SlowStore {
    type Error = Infallible;
    type Record = ();
    type Changes = MemoryChanges;
    type Claim = MemoryClaim;
    type Writer = SlowWriter;

    fn budget(&self) -> &Budget {
        self.0.budget()
    }

    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>> {
        delay(self.0.reserve(bytes, purpose))
    }

    fn record(&self, _: &request::Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    fn accept(
        &self,
        job: &NewJob,
        record: (),
    ) -> impl StoreFuture<Result<Acceptance<MemoryClaim>, Infallible>> {
        let (store, job) = (self.0.clone(), job.clone());
        delay(async move { store.accept(&job, record).await })
    }

    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, Infallible>> {
        let store = self.0.clone();
        delay(async move { store.get(id).await })
    }

    fn changes(&self, id: JobId) -> MemoryChanges {
        self.0.changes(id)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, Infallible> {
        yield_now().await;
        self.0.list(filter).await
    }

    // A report and an end take effect at once; only their futures are late.
    fn report(
        &self,
        claim: &MemoryClaim,
        report: Report,
    ) -> impl StoreFuture<Result<(), Infallible>> {
        delay(self.0.report(claim, report))
    }

    fn respond(&self, claim: &MemoryClaim, head: response::Parts) -> SlowWriter {
        SlowWriter {
            inner: self.0.respond(claim, head),
            has_waited: false,
        }
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End<SlowWriter>,
    ) -> impl StoreFuture<Result<Finished, Infallible>> {
        let mut inner = End::new(match end.outcome {
            Outcome::Response(writer) => Outcome::Response(writer.inner),
            Outcome::NoResponse(code) => Outcome::NoResponse(code),
        });
        inner.started = end.started;
        inner.progress = end.progress;
        inner.key = end.key;
        delay(self.0.finish(claim, inner))
    }

    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, Infallible> {
        yield_now().await;
        self.0.read(id, from).await
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

/// A writer that has room for each chunk at the second poll.
pub(crate) struct SlowWriter {
    inner: MemoryWriter,
    has_waited: bool,
}

impl Writer for SlowWriter {
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        self.has_waited = !self.has_waited;
        if self.has_waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.inner.poll_room(bytes, cx)
    }

    fn push(&mut self, data: Bytes) {
        self.inner.push(data);
    }

    fn push_trailers(&mut self, trailers: HeaderMap) {
        self.inner.push_trailers(trailers);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }
}

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn slow_store_keeps_its_promises() {
    tower_accepted::store::conformance::run(async || SlowStore::new()).await;
}

async fn site() -> Option<InProcess<SlowStore>> {
    Some(InProcess::new(|builder| {
        builder.store(SlowStore::new()).build()
    }))
}

mod routes {
    super::route_suite!((start_paused = true), super::site);
}
