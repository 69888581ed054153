//! The layer on a store whose futures are not ready at once, as those of a database are.

use std::{
    convert::Infallible,
    error, fmt,
    future::Future,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode, request, response};
use http_body_util::BodyExt;
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};
use tower::Layer;
use tower_accepted::{
    Filter, JobId, Jobs, Page, When,
    store::{
        Acceptance, Budget, Charge, End, Finished, Lookup, MemoryChanges, MemoryClaim, MemoryStore,
        MemoryWriter, NewJob, NoRoom, Outcome, Purpose, Reading, Report, Revisions, Store,
        StoreFuture, Writer,
    },
};

use crate::{
    suites::route_suite,
    suites_run::InProcess,
    support::{Body, Failed, ended, inner, post, result, send},
};

/// A store in memory whose futures are ready at their third poll.
#[derive(Clone)]
pub(crate) struct SlowStore {
    inner: MemoryStore,
    /// The time that a reservation of bytes takes.
    reserve_time: Duration,
    /// Set if the store accepts no job.
    is_down: bool,
    /// Set if the store says that it outlives its process.
    is_durable: bool,
}

/// The error of a store that is down.
#[derive(Debug)]
pub(crate) struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store is down")
    }
}

impl error::Error for Down {}

fn known<T>(Ok(value): Result<T, Infallible>) -> Result<T, Down> {
    Ok(value)
}

impl SlowStore {
    pub(crate) fn new() -> Self {
        Self::with_reserve_time(Duration::ZERO)
    }

    /// Creates a store that takes this time to reserve bytes of its budget.
    fn with_reserve_time(time: Duration) -> Self {
        let budget = Budget::new(1 << 26);
        Self {
            inner: MemoryStore::new(Duration::from_secs(120), budget),
            reserve_time: time,
            is_down: false,
            is_durable: false,
        }
    }

    /// Creates a store that says that it outlives its process.
    pub(crate) fn durable() -> Self {
        Self {
            is_durable: true,
            ..Self::new()
        }
    }

    /// Creates a store that fails to accept jobs.
    pub(crate) fn down() -> Self {
        Self {
            is_down: true,
            ..Self::new()
        }
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
    type Error = Down;
    type Record = ();
    type Changes = MemoryChanges;
    type Claim = MemoryClaim;
    type Writer = SlowWriter;

    fn budget(&self) -> &Budget {
        self.inner.budget()
    }

    fn is_durable(&self) -> bool {
        self.is_durable
    }

    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>> {
        let (store, time) = (self.inner.clone(), self.reserve_time);
        delay(async move {
            sleep(time).await;
            store.reserve(bytes, purpose).await
        })
    }

    fn record(&self, _: &request::Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    fn accept(
        &self,
        job: &NewJob,
        record: (),
    ) -> impl StoreFuture<Result<Acceptance<MemoryClaim>, Down>> {
        let (store, job, is_down) = (self.inner.clone(), job.clone(), self.is_down);
        delay(async move {
            if is_down {
                return Err(Down);
            }
            known(store.accept(&job, record).await)
        })
    }

    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, Down>> {
        let store = self.inner.clone();
        delay(async move { known(store.get(id).await) })
    }

    fn changes(&self, id: JobId) -> MemoryChanges {
        self.inner.changes(id)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, Down> {
        yield_now().await;
        known(self.inner.list(filter).await)
    }

    // A report and an end take effect at once; only their futures are late.
    fn report(&self, claim: &MemoryClaim, report: Report) -> impl StoreFuture<Result<(), Down>> {
        let report = self.inner.report(claim, report);
        delay(async { known(report.await) })
    }

    fn respond(
        &self,
        claim: &MemoryClaim,
        head: response::Parts,
        length: Option<u64>,
    ) -> SlowWriter {
        SlowWriter {
            inner: self.inner.respond(claim, head, length),
            has_waited: false,
            is_flushed: true,
            waiter: None,
        }
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End<SlowWriter>,
    ) -> impl StoreFuture<Result<Finished, Down>> {
        let mut inner = End::new(match end.outcome {
            Outcome::Response(writer) => Outcome::Response(writer.inner),
            Outcome::NoResponse(code) => Outcome::NoResponse(code),
        });
        inner.started = end.started;
        inner.progress = end.progress;
        inner.key = end.key;
        let finish = self.inner.finish(claim, inner);
        delay(async { known(finish.await) })
    }

    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, Down> {
        yield_now().await;
        known(self.inner.read(id, from).await)
    }

    fn poll_canceled(&self, claim: &MemoryClaim, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_canceled(claim, cx)
    }

    async fn cancel(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, Down> {
        yield_now().await;
        known(self.inner.cancel(id, revisions).await)
    }

    async fn forget(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, Down> {
        yield_now().await;
        known(self.inner.forget(id, revisions).await)
    }
}

/// A writer that has room for each chunk at the second poll, once what precedes it can be read.
pub(crate) struct SlowWriter {
    inner: MemoryWriter,
    has_waited: bool,
    is_flushed: bool,
    waiter: Option<Waker>,
}

impl Writer for SlowWriter {
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>> {
        if !self.is_flushed {
            self.waiter = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.has_waited = !self.has_waited;
        if self.has_waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.inner.poll_room(bytes, cx)
    }

    fn push(&mut self, data: Bytes) {
        self.is_flushed = false;
        self.inner.push(data);
    }

    fn push_trailers(&mut self, trailers: HeaderMap) {
        self.inner.push_trailers(trailers);
    }

    fn flush(&mut self) {
        self.is_flushed = true;
        self.inner.flush();
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn slow_store_keeps_its_promises() {
    tower_accepted::store::conformance::run(async || SlowStore::new()).await;
}

#[tokio::test(start_paused = true)]
async fn frame_that_waits_for_room_reaches_the_call() {
    let store = SlowStore::with_reserve_time(Duration::from_secs(60));
    let builder = Jobs::builder().body_timeout(Duration::from_secs(10));
    let jobs = builder.store(store).build();
    let after = When::After(Duration::from_secs(1));
    let service = jobs.layer().when(after).layer(inner(async |request| {
        let body = request.into_body().collect().await.map_err(|_| Failed)?;
        Ok(Response::new(Body::from(body.to_bytes())))
    }));
    let answer = send(&service, post("/").map(|_| Body::from("whole"))).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "whole"));
}

#[tokio::test(start_paused = true)]
async fn room_for_a_frame_may_depend_on_readers() {
    let jobs = Jobs::builder().store(SlowStore::new()).build();
    let service = jobs.layer().layer(inner(async |_| {
        let frames = stream::iter(["one, ", "two, ", "three"].map(Ok::<_, Failed>));
        Ok(Response::new(Body::from_stream(frames)))
    }));
    let accepted = send(&service, post("/")).await;
    let ended = timeout(Duration::from_secs(3600), ended(&service, &accepted)).await;
    assert_eq!(ended.expect("the job ends")["status"], "succeeded");
    assert_eq!(result(&service, &accepted).await.text(), "one, two, three");
}

async fn site() -> Option<InProcess<SlowStore>> {
    Some(InProcess::new(|builder| {
        builder.store(SlowStore::new()).build()
    }))
}

mod routes {
    super::route_suite!((start_paused = true), super::site);
}
