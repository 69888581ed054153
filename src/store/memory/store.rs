//! The store in memory.

use std::{
    convert::Infallible,
    fmt,
    future::ready,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, request, response};

use super::{
    changes::MemoryChanges,
    claim::MemoryClaim,
    ended::StoredOutcome,
    reaper,
    table::{Inserted, JobTable},
    unfinished::{Ending, ReadableResponse, Readiness},
    writer::MemoryWriter,
};
use crate::{
    job::{ErrorCode, Filter, JobId, Page},
    limit::{Budget, Charge, Purpose},
    store::{
        Acceptance, End, Finished, Lookup, NewJob, Outcome, Reading, Report, Store, StoreFuture,
    },
};

/// Keeps jobs in this process's memory, in a [`DashMap`](dashmap::DashMap).
///
/// Its budget limits the memory of its jobs. Besides its result, a job counts:
///
/// - 320 bytes, and 16 more once it has ended,
/// - 192 bytes and its texts, if it has an owner, an idempotency key, a title or callbacks,
/// - 160 bytes for an idempotency key, until the key expires.
///
/// To make room, the store evicts the jobs that ended first. All jobs are lost with the process:
/// [drain](crate::Jobs::drain) before a shutdown.
#[derive(Clone)]
pub struct MemoryStore {
    table: Arc<JobTable>,
}

impl MemoryStore {
    /// Creates a store that keeps ended jobs for `retain`, within `budget`.
    pub fn new(retain: Duration, budget: Budget) -> Self {
        Self {
            table: Arc::new(JobTable::new(retain, budget)),
        }
    }

    /// Sets the maximum number of idempotency keys that are remembered. Default: 1,000,000.
    ///
    /// At the maximum, a request with a new key is refused.
    pub fn with_max_keys(self, keys: usize) -> Self {
        self.table.keys().set_max(keys);
        self
    }

    /// Returns the number of jobs, including unfinished ones. A job that is just ending may count
    /// twice.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns `true` if the store has no jobs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Arc<JobTable> {
        &self.table
    }
}

impl Store for MemoryStore {
    type Error = Infallible;
    type Record = ();
    type Changes = MemoryChanges;
    type Claim = MemoryClaim;
    type Writer = MemoryWriter;

    fn budget(&self) -> &Budget {
        self.table.budget()
    }

    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>> {
        ready(self.table.reserve(bytes, purpose))
    }

    fn record(&self, _: &request::Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    // Done in the call itself, so that the layer's future needs no room for it.
    fn accept(
        &self,
        new: &NewJob,
        (): (),
    ) -> impl StoreFuture<Result<Acceptance<MemoryClaim>, Infallible>> {
        ready(Ok(match self.table.accept(new) {
            Inserted::New(job) => Acceptance::RunHere(MemoryClaim::new(self.table.clone(), job)),
            Inserted::Joined(job) => Acceptance::Joined(job),
            Inserted::KeyReused => Acceptance::KeyReused,
            Inserted::Gone => Acceptance::Gone,
            Inserted::Full => Acceptance::Full,
        }))
    }

    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, Infallible>> {
        ready(Ok(self.table.lookup(id)))
    }

    fn changes(&self, id: JobId) -> MemoryChanges {
        MemoryChanges::new(id, &self.table)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, Infallible> {
        Ok(self.table.list(filter).await)
    }

    fn report(
        &self,
        claim: &MemoryClaim,
        report: Report,
    ) -> impl StoreFuture<Result<(), Infallible>> {
        claim.job().report(report, self.table.clock());
        ready(Ok(()))
    }

    fn respond(&self, claim: &MemoryClaim, head: response::Parts) -> MemoryWriter {
        MemoryWriter::new(self.table.clone(), claim.job().clone(), head)
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End<MemoryWriter>,
    ) -> impl StoreFuture<Result<Finished, Infallible>> {
        let outcome = match end.outcome {
            Outcome::Response(writer) => writer.finish(),
            Outcome::NoResponse(code) => StoredOutcome::NoResponse(code),
        };
        let started = end.started.map(|at| self.table.clock().millis(at));
        let ending = Ending::new(outcome, started, end.progress, end.key);
        ready(Ok(if reaper::end(&self.table, claim.job(), ending) {
            Finished::First
        } else {
            Finished::Late
        }))
    }

    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, Infallible> {
        let Some(found) = self.table.find(id) else {
            return Ok(None);
        };
        loop {
            match found.response() {
                Readiness::Ready(ReadableResponse::Live(response)) => {
                    return Ok(Some(response.read(from)));
                }
                Readiness::Ready(ReadableResponse::Ended(job)) => return Ok(job.read(from)),
                Readiness::Wait(change) => change.await,
            }
        }
    }

    fn poll_canceled(&self, claim: &MemoryClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.job().poll_ended(cx)
    }

    async fn cancel(&self, id: JobId) -> Result<Lookup, Infallible> {
        if let Some(job) = self.table.find_unfinished(id) {
            let canceled = Ending::without_response(ErrorCode::Canceled);
            reaper::end(&self.table, &job, canceled);
            // Not looked up again, since it may have been evicted already.
            let clock = self.table.clock();
            return Ok(Lookup::Found(Box::new(job.snapshot(clock, clock.now()))));
        }
        Ok(self.table.lookup(id))
    }

    async fn forget(&self, id: JobId) -> Result<Lookup, Infallible> {
        // Looked up first, since the job may be evicted meanwhile.
        let key = self.table.key_of(id);
        let found = self.cancel(id).await?;
        if let Lookup::Found(_) = found {
            // First, so that no repeat finds a key without its job.
            if let Some(key) = key {
                self.table.keys().free(key, id);
            }
            self.table.remove(id);
        }
        Ok(found)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("jobs", &self.len())
            .field("budget", self.budget())
            .finish_non_exhaustive()
    }
}
