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
    reader::ReplayReader,
    reaper,
    table::{FoundJob, Inserted, JobTable},
    unfinished::{Ending, Readiness},
    unfinished_body,
    writer::MemoryWriter,
};
use crate::{
    job::{Filter, JobId, Page},
    limit::{Budget, Charge, Purpose},
    store::{
        Acceptance, End, Finished, Lookup, NewJob, Outcome, Reading, Report, Revisions,
        SharedOutbox, Store, StoreFuture,
    },
};

/// Keeps jobs in this process's memory, in a [`DashMap`](dashmap::DashMap).
///
/// Its [budget](Budget) limits the memory of its jobs. A job counts:
///
/// - until it ends: its request, 1,024 bytes, and the progress that it reports;
/// - once it has ended: 336 bytes, its progress, and its response, or a part of one, as stored;
/// - in both cases: 192 bytes and its texts, if it has an owner, an idempotency key, a title or
///   callbacks; and about 80 bytes for each callback, and 24 for each of its events.
///
/// An idempotency key takes about 160 bytes until it expires, in addition to the budget: their
/// number has a limit of its own.
///
/// A delivery counts 512 bytes, its URL and, until its receiver has acknowledged it, its content.
/// Deliveries take at most an eighth of the budget. Beyond that, the oldest are dropped: first
/// those that are settled.
///
/// A field counts its name, its value and 112 bytes while it is in a map. To make room, the store
/// evicts the jobs that ended first. It passes over results that are being read. All jobs are lost
/// with the process: [drain](crate::Jobs::drain) before a shutdown.
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
            Inserted::New(job, request) => {
                Acceptance::RunHere(MemoryClaim::new(self.table.clone(), job, request))
            }
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
        let reserve = |bytes| self.table.reserve(bytes, Purpose::Accepted);
        claim.job().report(report, self.table.clock(), reserve);
        ready(Ok(()))
    }

    fn respond(
        &self,
        claim: &MemoryClaim,
        head: response::Parts,
        length: Option<u64>,
    ) -> MemoryWriter {
        MemoryWriter::new(self.table.clone(), claim.job().clone(), head, length)
    }

    fn finish(
        &self,
        claim: &MemoryClaim,
        end: End<MemoryWriter>,
    ) -> impl StoreFuture<Result<Finished, Infallible>> {
        let outcome = match end.outcome {
            Outcome::Response(writer) => writer.finish(),
            // The job has the part that was flushed.
            Outcome::NoResponse(code) => StoredOutcome::NoResponse(code, None),
        };
        let started = end.started.map(|at| self.table.clock().millis(at));
        let ending = Ending::new(outcome, started, end.progress, end.key);
        let ended = reaper::end(&self.table, claim.job(), ending);
        ready(Ok(match ended {
            Some(_) => Finished::First,
            None => Finished::Late,
        }))
    }

    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, Infallible> {
        let found = self.table.find(id);
        while let Some(FoundJob::Unfinished(job)) = &found {
            match job.response() {
                Readiness::Ready(response) => {
                    return Ok(Some(unfinished_body::read(
                        &response,
                        &self.table,
                        id,
                        from,
                    )));
                }
                Readiness::Wait(change) => change.await,
                Readiness::Ended => break,
            }
        }
        if found.is_none() {
            return Ok(None);
        }
        drop(found);
        let reader = ReplayReader::begin(&self.table, id).await;
        Ok(reader.map(|reader| reader.read(from)))
    }

    fn outbox(&self) -> Option<SharedOutbox<Infallible>> {
        Some(self.table.outbox().clone())
    }

    fn poll_canceled(&self, claim: &MemoryClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.job().poll_ended(cx)
    }

    async fn cancel(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, Infallible> {
        if let Some(job) = self.table.find_unfinished(id) {
            let canceled = Ending::canceled(revisions.clone());
            // Not looked up again, since it may have been evicted already.
            if let Some(job) = reaper::end(&self.table, &job, canceled) {
                let clock = self.table.clock();
                let job = Box::new(job.snapshot(clock, clock.now()));
                return Ok(Some(Lookup::Found(job)));
            }
            // It has ended before, or its revision is another one.
            if job.is_unfinished() {
                return Ok(None);
            }
        }
        // An ended job does not change any more, so it can be checked outside of its lock.
        Ok(match self.table.lookup(id) {
            Lookup::Found(job) if !revisions.contains(job.revision) => None,
            found => Some(found),
        })
    }

    async fn forget(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, Infallible> {
        // Looked up first, since the job may be evicted meanwhile.
        let key = self.table.key_of(id);
        let found = self.cancel(id, revisions).await?;
        if let Some(Lookup::Found(_)) = found {
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
