//! The names of streams, consumers and subjects.

use serde::Serialize;

use crate::{
    JobId, Owner,
    store::{DeliveryId, Key},
};

/// Builds the names of all streams and subjects from the prefix of the options.
#[derive(Debug, Clone)]
pub(super) struct ResourceNames {
    prefix: String,
}

impl ResourceNames {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
    }

    /// The work queue: one request per unfinished job.
    pub(super) fn queue_stream(&self) -> String {
        format!("{}_queue", self.prefix)
    }

    /// The stream behind the key-value bucket of jobs and owners' lists.
    pub(super) fn jobs_stream(&self) -> String {
        format!("KV_{}_jobs", self.prefix)
    }

    /// The stream behind the key-value bucket of idempotency keys.
    pub(super) fn keys_stream(&self) -> String {
        format!("KV_{}_keys", self.prefix)
    }

    /// Chunks of large request bodies.
    pub(super) fn requests_stream(&self) -> String {
        format!("{}_requests", self.prefix)
    }

    /// Chunks of large result bodies.
    pub(super) fn results_stream(&self) -> String {
        format!("{}_results", self.prefix)
    }

    /// The deliveries of webhooks.
    pub(super) fn deliveries_stream(&self) -> String {
        format!("{}_deliveries", self.prefix)
    }

    /// The consumer of the queue that all workers share.
    pub(super) fn workers_consumer(&self) -> String {
        format!("{}_workers", self.prefix)
    }

    pub(super) fn all_queued(&self) -> String {
        format!("{}.queue.*", self.prefix)
    }

    pub(super) fn queued(&self, id: JobId) -> String {
        format!("{}.queue.{id}", self.prefix)
    }

    /// All subjects of the bucket of jobs and owners' lists.
    pub(super) fn all_in_bucket(&self) -> String {
        format!("$KV.{}_jobs.>", self.prefix)
    }

    /// All subjects of the bucket of keys.
    pub(super) fn all_keys(&self) -> String {
        format!("$KV.{}_keys.*", self.prefix)
    }

    /// The run and end records of all jobs.
    pub(super) fn all_jobs(&self) -> String {
        format!("$KV.{}_jobs.job.*.*", self.prefix)
    }

    /// The record of a job from its first claim on.
    pub(super) fn run(&self, id: JobId) -> String {
        format!("$KV.{}_jobs.job.run.{id}", self.prefix)
    }

    /// The record of a later claim; `attempt` counts from 1, so the first of these is 2.
    pub(super) fn claim(&self, id: JobId, attempt: u32) -> String {
        format!("$KV.{}_jobs.claim.{id}.{attempt}", self.prefix)
    }

    /// The record of a claimed job's end.
    pub(super) fn end(&self, id: JobId) -> String {
        format!("$KV.{}_jobs.job.end.{id}", self.prefix)
    }

    /// Returns `true` if a subject is an end record's.
    pub(super) fn is_end(subject: &str) -> bool {
        subject.contains("_jobs.job.end.")
    }

    pub(super) fn key(&self, key: &Key) -> String {
        format!("$KV.{}_keys.{}", self.prefix, hex(key))
    }

    /// The lease of the process that refreshes the queue.
    pub(super) fn janitor_lease(&self) -> String {
        // The name that version 0.1 gave it.
        format!("$KV.{}_jobs.turn", self.prefix)
    }

    /// All entries of an owner's list.
    pub(super) fn all_owned(&self, owner: &Owner) -> String {
        format!("$KV.{}_jobs.owner.{}.*", self.prefix, hex(owner))
    }

    /// A job's entry in its owner's list.
    pub(super) fn owned(&self, owner: &Owner, id: JobId) -> String {
        format!("$KV.{}_jobs.owner.{}.{id}", self.prefix, hex(owner))
    }

    pub(super) fn all_request_chunks(&self) -> String {
        format!("{}.request.*.*", self.prefix)
    }

    pub(super) fn request_chunk(&self, id: JobId, index: u32) -> String {
        format!("{}.request.{id}.{index}", self.prefix)
    }

    pub(super) fn all_result_chunks(&self) -> String {
        format!("{}.result.*.*.*", self.prefix)
    }

    pub(super) fn result_chunk(&self, id: JobId, claim: u64, index: u32) -> String {
        format!("{}.result.{id}.{claim:016x}.{index}", self.prefix)
    }

    /// The parts of a job's unfinished response, of any claim.
    pub(super) fn all_parts(&self, id: JobId) -> String {
        format!("{}.result.part-{id}.*.*", self.prefix)
    }

    /// A part of the response of the call under one claim. It is in the stream of results.
    pub(super) fn part(&self, id: JobId, claim: u64, index: u32) -> String {
        format!("{}.result.part-{id}.{claim:016x}.{index}", self.prefix)
    }

    /// Parses the claim and the index that end the subject of a part.
    pub(super) fn part_position(subject: &str) -> Option<(u64, u32)> {
        let (rest, index) = subject.rsplit_once('.')?;
        let (_, claim) = rest.rsplit_once('.')?;
        Some((u64::from_str_radix(claim, 16).ok()?, index.parse().ok()?))
    }

    pub(super) fn all_deliveries(&self) -> String {
        format!("{}.delivery.*.*", self.prefix)
    }

    pub(super) fn deliveries_of(&self, job: JobId) -> String {
        format!("{}.delivery.{job}.*", self.prefix)
    }

    pub(super) fn delivery(&self, id: DeliveryId) -> String {
        format!("{}.delivery.{}.{}", self.prefix, id.job(), id.target())
    }

    /// Parses the id that ends the subject of a delivery.
    pub(super) fn delivery_id(subject: &str) -> Option<DeliveryId> {
        let (rest, target) = subject.rsplit_once('.')?;
        let job = Self::job_id(rest)?;
        Some(DeliveryId::new(job, target.parse().ok()?))
    }

    /// The lease of the process that sends deliveries.
    pub(super) fn outbox_lease(&self) -> String {
        format!("$KV.{}_jobs.outbox", self.prefix)
    }

    /// Parses the job id that ends a subject.
    pub(super) fn job_id(subject: &str) -> Option<JobId> {
        let (_, id) = subject.rsplit_once('.')?;
        id.parse().ok()
    }
}

/// Returns the digest of an owner or a key in hexadecimal, as serde writes it.
fn hex(digest: &impl Serialize) -> String {
    let json = serde_json::to_string(digest).expect("a digest is a JSON string");
    json.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_has_its_claim_and_index() {
        let subject = ResourceNames::new("accepted").part(JobId::random(), 0xa7, 12);
        let position = ResourceNames::part_position(&subject);
        assert_eq!(position, Some((0xa7, 12)));
    }

    #[test]
    fn subject_of_a_delivery_has_its_id() {
        let names = ResourceNames::new("accepted");
        let id = DeliveryId::new(JobId::random(), 12);
        assert_eq!(ResourceNames::delivery_id(&names.delivery(id)), Some(id));
        assert_eq!(ResourceNames::delivery_id(&names.outbox_lease()), None);
    }

    #[test]
    fn subjects_of_an_owner_have_its_digest() {
        let names = ResourceNames::new("accepted");
        let all = names.all_owned(&Owner::new("me"));
        let digest = all.strip_prefix("$KV.accepted_jobs.owner.");
        let digest = digest.and_then(|rest| rest.strip_suffix(".*"));
        let digest = digest.expect("an owner's subjects");
        assert_eq!(digest.len(), 32);
        assert!(digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let id = JobId::random();
        let entry = names.owned(&Owner::new("me"), id);
        assert_eq!(ResourceNames::job_id(&entry), Some(id));
    }
}
