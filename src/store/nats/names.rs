use crate::{
    config::Key,
    job::{JobId, Owner},
};

/// What the streams are called, and what is in them.
#[derive(Debug, Clone)]
pub(super) struct SubjectNames {
    prefix: String,
}

impl SubjectNames {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
    }

    /// The requests that are not done with.
    pub(super) fn queue(&self) -> String {
        format!("{}_queue", self.prefix)
    }

    /// The bucket of jobs, keys and lists, as a stream.
    pub(super) fn jobs(&self) -> String {
        format!("KV_{}_jobs", self.prefix)
    }

    /// Large bodies of requests.
    pub(super) fn requests(&self) -> String {
        format!("{}_requests", self.prefix)
    }

    /// Large bodies of results.
    pub(super) fn results(&self) -> String {
        format!("{}_results", self.prefix)
    }

    /// The consumer of the queue.
    pub(super) fn workers(&self) -> String {
        format!("{}_workers", self.prefix)
    }

    pub(super) fn all_queued(&self) -> String {
        format!("{}.queue.*", self.prefix)
    }

    pub(super) fn queued(&self, id: JobId) -> String {
        format!("{}.queue.{id}", self.prefix)
    }

    pub(super) fn all_in_bucket(&self) -> String {
        format!("$KV.{}_jobs.>", self.prefix)
    }

    pub(super) fn all_jobs(&self) -> String {
        format!("$KV.{}_jobs.job.*.*", self.prefix)
    }

    /// A job from its claim on.
    pub(super) fn run(&self, id: JobId) -> String {
        format!("$KV.{}_jobs.job.run.{id}", self.prefix)
    }

    /// A claim of a job that was claimed before: which one that is, counted from 1.
    pub(super) fn claim(&self, id: JobId, attempt: u32) -> String {
        format!("$KV.{}_jobs.claim.{id}.{attempt}", self.prefix)
    }

    /// The end of a job that was claimed.
    pub(super) fn end(&self, id: JobId) -> String {
        format!("$KV.{}_jobs.job.end.{id}", self.prefix)
    }

    /// Whether a subject is that of an end.
    pub(super) fn is_end(subject: &str) -> bool {
        subject.contains("_jobs.job.end.")
    }

    pub(super) fn key(&self, key: &Key) -> String {
        format!("$KV.{}_jobs.key.{}", self.prefix, key.digest())
    }

    /// Whose turn it is to look through the queue.
    pub(super) fn turn(&self) -> String {
        format!("$KV.{}_jobs.turn", self.prefix)
    }

    pub(super) fn all_listed(&self, owner: &Owner) -> String {
        format!("$KV.{}_jobs.owner.{}.*", self.prefix, owner.digest())
    }

    pub(super) fn listed(&self, owner: &Owner, id: JobId) -> String {
        format!("$KV.{}_jobs.owner.{}.{id}", self.prefix, owner.digest())
    }

    pub(super) fn all_requests(&self) -> String {
        format!("{}.request.*.*", self.prefix)
    }

    pub(super) fn request_part(&self, id: JobId, part: u32) -> String {
        format!("{}.request.{id}.{part}", self.prefix)
    }

    pub(super) fn all_results(&self) -> String {
        format!("{}.result.*.*.*", self.prefix)
    }

    pub(super) fn result_part(&self, id: JobId, claim: u64, part: u32) -> String {
        format!("{}.result.{id}.{claim:016x}.{part}", self.prefix)
    }

    /// The job that a subject ends with.
    pub(super) fn id(subject: &str) -> Option<JobId> {
        let (_, id) = subject.rsplit_once('.')?;
        id.parse().ok()
    }
}
