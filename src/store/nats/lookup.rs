//! Reads the state of a job from the bucket and the queue.

use bytes::Bytes;

use super::{
    error::NatsError,
    jetstream::{JetStream, StoredRecord},
    record::JobRecord,
};
use crate::{JobId, store::Lookup};

/// A job that has a record, or waits in the queue.
pub(super) struct LocatedJob {
    pub(super) record: JobRecord,
    /// The result's body, if the record's message holds it.
    pub(super) body: Bytes,
}

impl From<StoredRecord> for LocatedJob {
    fn from(stored: StoredRecord) -> Self {
        Self {
            record: stored.record,
            body: stored.body,
        }
    }
}

impl JetStream {
    /// Looks up a job. Returns [`Lookup::Unknown`] only if the replicas confirm it.
    pub(super) async fn lookup(&self, id: JobId) -> Result<Lookup, NatsError> {
        let found = self.find_job(id).await?;
        Ok(found.map_or(Lookup::Unknown, |job| job.record.lookup(id)))
    }

    /// Reads a job. Returns `None` only if the replicas confirm it.
    pub(super) async fn find_job(&self, id: JobId) -> Result<Option<LocatedJob>, NatsError> {
        self.job_barrier.read(|| self.job_at_leader(id)).await
    }

    /// Reads a job, brought up to date with later claims. Returns `None` only if the replicas
    /// confirm it.
    pub(super) async fn find_job_with_claims(
        &self,
        id: JobId,
    ) -> Result<Option<LocatedJob>, NatsError> {
        match self.record_with_claims(id).await? {
            Some(found) => Ok(Some(found.into())),
            None => self.find_job(id).await,
        }
    }

    /// Reads a job from the bucket and then from the queue, at the leaders of both streams.
    pub(super) async fn job_at_leader(&self, id: JobId) -> Result<Option<LocatedJob>, NatsError> {
        if let Some(found) = self.record(id).await? {
            return Ok(Some(found.into()));
        }
        if let Some(entry) = self.queue_entry(id).await? {
            return Ok(Some(LocatedJob {
                record: JobRecord::queued(&entry.request),
                body: Bytes::new(),
            }));
        }
        // The job may have moved from the queue to the bucket between the two reads.
        let found = self.record(id).await?;
        Ok(found.map(LocatedJob::from))
    }

    /// Reads a job's record: that of its end, or else that of its run.
    pub(super) async fn record(&self, id: JobId) -> Result<Option<StoredRecord>, NatsError> {
        for subject in [self.names.end(id), self.names.run(id)] {
            if let Some(found) = self.record_at(&subject).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads a job's record, brought up to date with later claims.
    ///
    /// The record of a run may not reflect the newest claim yet. Subject and sequence are those of
    /// the run.
    pub(super) async fn record_with_claims(
        &self,
        id: JobId,
    ) -> Result<Option<StoredRecord>, NatsError> {
        let Some(mut known) = self.record(id).await? else {
            return Ok(None);
        };
        while !known.record.is_ended() {
            match self.next_claim(id, &known.record).await? {
                Some(claimed) => known.record = claimed.record,
                None => break,
            }
        }
        Ok(Some(known))
    }

    /// Reads the claim that follows a record.
    pub(super) async fn next_claim(
        &self,
        id: JobId,
        record: &JobRecord,
    ) -> Result<Option<StoredRecord>, NatsError> {
        let subject = self.names.claim(id, record.attempts.saturating_add(1));
        self.record_at(&subject).await
    }
}
