//! The record of a job in the bucket, and the changes that a job goes through.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    clock::{as_millis, from_unix_millis, unix_millis, unix_now},
    envelope::{encode, encode_streamed},
    report::PendingReport,
    request::{JobDetails, QueuedRequest},
    response::{ResponseRecord, StreamedParts},
};
use crate::{
    ErrorCode, Event, Failure, JobId, Kind, Progress, Snapshot, Status,
    store::{Lookup, NewJob},
};

/// The distance between the revision of an end and the last revision before it.
///
/// The process that ends a job may not know of a report that is being written. That report's
/// revision must stay below the end's.
const END_REVISION_STEP: u64 = 1 << 20;

/// The maximum number of claims whose outputs are removed at the end of a job.
const MAX_FORMER_CLAIMS: usize = 16;

/// A job as the bucket stores it from its first claim on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JobRecord {
    /// A random number per write: identifies a write whose acknowledgement was lost.
    pub(super) nonce: u64,
    pub(super) revision: u64,
    pub(super) status: Status,
    #[serde(flatten)]
    pub(super) details: JobDetails,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fraction: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<ResponseRecord>,
    /// The part of a response that broke off. Present only after an end without a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) partial: Option<ResponseRecord>,
    /// The claim under which the job runs; `None` while it waits, and after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<ClaimHolder>,
    /// The claims of processes that died, whose outputs are removed when the job has ended.
    #[serde(rename = "former", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) former_claims: Vec<u64>,
    /// The number of claims so far.
    #[serde(default)]
    pub(super) attempts: u32,
    /// The number of claims that ended in a requeue at shutdown.
    #[serde(rename = "handed_back", default, skip_serializing_if = "is_zero")]
    pub(super) requeues: u32,
    /// The earliest time of the next claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<u64>,
    /// Set if the job was deleted: look-ups report it as unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) forgotten: bool,
    /// Set if the end has released the idempotency key: the next request with it is a new one.
    #[serde(
        rename = "key_released",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub(super) is_key_released: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde expects"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A claim as other processes see it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ClaimHolder {
    pub(super) claim: u64,
    /// The sequence of the claimed message; `None` if the accepting process runs the job.
    ///
    /// The queue may hold a second message of the same request, if its write was repeated.
    #[serde(rename = "message", default, skip_serializing_if = "Option::is_none")]
    pub(super) queue_sequence: Option<u64>,
    /// The end of the lease if the claim has no message of the queue, whose ack deadline is the
    /// lease otherwise.
    #[serde(rename = "until", default, skip_serializing_if = "Option::is_none")]
    pub(super) lease_until: Option<u64>,
    /// The time of the holder's own last write. Another process that refreshes the record keeps
    /// this value.
    #[serde(rename = "since", default)]
    pub(super) written_at: u64,
}

impl JobRecord {
    /// Creates the record of a queued job, at its first revision.
    pub(super) fn queued(request: &QueuedRequest) -> Self {
        Self {
            nonce: 0,
            revision: 1,
            status: Status::Queued,
            details: request.details.clone(),
            started_at: None,
            finished_at: None,
            expires_at: None,
            fraction: None,
            message: None,
            error: None,
            response: None,
            partial: None,
            holder: None,
            former_claims: Vec::new(),
            attempts: 0,
            requeues: 0,
            not_before: None,
            forgotten: false,
            is_key_released: false,
        }
    }

    /// Creates the record of a job that the accepting process runs itself.
    pub(super) fn begun_here(new: &NewJob, request: &QueuedRequest, holder: ClaimHolder) -> Self {
        let created_at = request.details.created_at;
        let started_at = new
            .started
            .map(|at| as_millis(at.saturating_duration_since(new.created)))
            .map(|waited| created_at.saturating_add(waited));
        let status = if started_at.is_some() {
            Status::Running
        } else {
            Status::Queued
        };
        Self {
            status,
            started_at,
            fraction: new.progress.fraction,
            message: new.progress.message.as_deref().map(str::to_owned),
            holder: Some(holder),
            attempts: 1,
            ..Self::queued(request)
        }
    }

    /// Marks the job as running under a claim of the message at `queue_sequence`.
    pub(super) fn claim(&mut self, claim: u64, queue_sequence: u64) {
        self.revision += 1;
        self.supersede_holder();
        self.forget_progress();
        self.status = Status::Running;
        self.started_at.get_or_insert_with(unix_now);
        self.holder = Some(ClaimHolder {
            claim,
            queue_sequence: Some(queue_sequence),
            lease_until: None,
            written_at: unix_now(),
        });
        self.attempts += 1;
        self.not_before = None;
    }

    /// Forgets progress and estimate of an earlier call.
    fn forget_progress(&mut self) {
        if self.started_at.is_some() {
            self.fraction = None;
            self.message = None;
            self.details.estimated_finish_at = None;
        }
    }

    /// Releases the claim of a process that shuts down; the job may run again at once.
    pub(super) fn requeue(&mut self) {
        self.requeues += 1;
        // The process that shuts down removes its output.
        self.holder = None;
        self.release(Duration::ZERO);
    }

    /// Releases the claim; the job may run again after `delay`.
    pub(super) fn release(&mut self, delay: Duration) {
        self.revision += 1;
        self.supersede_holder();
        self.forget_progress();
        self.not_before = (!delay.is_zero()).then(|| unix_now().saturating_add(as_millis(delay)));
    }

    /// Removes a claim whose process has died. It may still end the job, so its output stays.
    fn supersede_holder(&mut self) {
        if let Some(holder) = self.holder.take() {
            self.former_claims.push(holder.claim);
            // The outputs of older claims expire.
            let excess = self.former_claims.len().saturating_sub(MAX_FORMER_CLAIMS);
            self.former_claims.drain(..excess);
        }
    }

    /// Returns the number of the call that runs, or comes next.
    pub(super) fn current_run(&self) -> u32 {
        self.attempts + u32::from(self.holder.is_none())
    }

    /// Returns the number of processes that died while they ran the job, the current holder
    /// included.
    pub(super) fn deaths(&self) -> u32 {
        self.attempts.saturating_sub(self.requeues)
    }

    /// Returns the time until the job may run again.
    pub(super) fn delay(&self) -> Duration {
        let millis = self
            .not_before
            .map_or(0, |at| at.saturating_sub(unix_now()));
        Duration::from_millis(millis)
    }

    /// Applies what the call has reported.
    pub(super) fn apply(&mut self, report: &PendingReport) {
        if let Some(at) = report.started {
            self.start(at);
        }
        if let Some(progress) = &report.progress {
            self.set_progress(progress);
        }
        if report.estimated_finish.is_some() {
            self.revision += 1;
            self.details.estimated_finish_at = report.estimated_finish.map(unix_millis);
        }
    }

    /// Marks the job as running, unless it was since its claim.
    pub(super) fn start(&mut self, at: SystemTime) {
        if let Some(status) = self.status.next(Event::Started) {
            self.revision += 1;
            self.status = status;
            self.started_at = Some(unix_millis(at));
        }
    }

    pub(super) fn set_progress(&mut self, progress: &Progress) {
        self.revision += 1;
        self.fraction = progress.fraction;
        self.message = progress.message.as_deref().map(str::to_owned);
        if let Some(title) = &progress.title {
            self.details.title = Some((**title).to_owned());
        }
    }

    /// Ends the job. It expires after `retain`.
    pub(super) fn end(&mut self, event: Event, retain: Duration) {
        let finished = unix_now();
        self.revision += END_REVISION_STEP;
        self.status = self.status.next(event).unwrap_or(self.status);
        self.finished_at = Some(finished);
        self.expires_at = Some(finished.saturating_add(as_millis(retain)));
        self.holder = None;
        self.not_before = None;
        self.details.estimated_finish_at = None;
        self.error = Failure::from_event(event).map(|failure| failure.code);
    }

    /// Ends and hides a job whose client got 503. Its receivers are not notified.
    pub(super) fn withdraw(&mut self) {
        self.end(Event::NoResponse(ErrorCode::Canceled), Duration::ZERO);
        self.forgotten = true;
        self.details.callbacks = None;
    }

    /// Returns the location of a result, or a part of one, that was published while it was
    /// produced.
    pub(super) fn streamed(&self) -> Option<StreamedParts> {
        let kept = self.response.as_ref().or(self.partial.as_ref());
        kept.and_then(|response| response.streamed)
    }

    /// Encodes the record and the body of its response.
    pub(super) fn encode(&self, body: &[u8]) -> Bytes {
        let response = self.response.as_ref();
        if response.is_some_and(|response| response.streamed.is_some()) {
            encode_streamed(self, body)
        } else {
            encode(self, body)
        }
    }

    pub(super) fn is_held_by(&self, claim: u64) -> bool {
        self.holder.is_some_and(|holder| holder.claim == claim)
    }

    /// Returns `true` if the accepting process was to run the job and has requeued it, or let its
    /// lease expire.
    pub(super) fn is_abandoned(&self) -> bool {
        let is_expired = |holder: ClaimHolder| {
            let until = holder.lease_until;
            until.is_some_and(|until| until <= unix_now())
        };
        !self.is_ended() && self.holder.is_none_or(is_expired)
    }

    /// Returns `true` if a request with this job's key is a new one.
    pub(super) fn frees_key(&self) -> bool {
        self.forgotten || self.is_key_released
    }

    pub(super) fn is_ended(&self) -> bool {
        self.status.is_ended()
    }

    pub(super) fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires| expires <= unix_now())
    }

    /// Returns what a look-up of the job reports.
    pub(super) fn lookup(&self, id: JobId) -> Lookup {
        if self.forgotten {
            Lookup::Unknown
        } else if self.is_expired() {
            Lookup::Gone(self.details.owner)
        } else {
            Lookup::Found(Box::new(self.snapshot(id)))
        }
    }

    pub(super) fn snapshot(&self, id: JobId) -> Snapshot {
        let details = &self.details;
        let response = self.response.as_ref().map(ResponseRecord::head);
        let mut snapshot = Snapshot::new(id, from_unix_millis(details.created_at));
        snapshot.owner = details.owner;
        snapshot.title = details.title.as_deref().map(Arc::from);
        snapshot.callbacks = details.callbacks.as_deref().map(Arc::from);
        snapshot.revision = self.revision;
        snapshot.status = self.status;
        // A claim of a job that has not started is not a call yet.
        snapshot.attempt = self.started_at.map_or(0, |_| self.attempts);
        snapshot.started_at = self.started_at.map(from_unix_millis);
        snapshot.finished_at = self.finished_at.map(from_unix_millis);
        snapshot.expires_at = self.expires_at.map(from_unix_millis);
        // Also for ended jobs: other processes learn from their durations.
        snapshot.kind = Some(Kind::new(&details.kind));
        snapshot.estimated_finish_at = details.estimated_finish_at.map(from_unix_millis);
        snapshot.progress.fraction = self.fraction;
        snapshot.progress.message = self.message.as_deref().map(Arc::from);
        snapshot.error = self.error.map(|code| {
            let response = response.as_ref();
            let response = response.filter(|_| code == ErrorCode::HttpError);
            Failure::new(code, response.map(|response| response.status))
        });
        snapshot.response = response;
        snapshot.partial = self.partial.as_ref().map(ResponseRecord::head);
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Delivery;

    #[test]
    fn records_of_version_0_1_can_be_read() {
        let text = r#"{"nonce":18446744073709551615,"revision":3,"status":"succeeded",
            "created_at":1795000000120,"started_at":1795000000121,"finished_at":1795000000122,
            "expires_at":9795000000122,"kind":"POST /reports",
            "owner":"00112233445566778899aabbccddeeff","key":"ffeeddccbbaa99887766554433221100",
            "fraction":0.5,"message":"page 5","response":{"status":200,
            "headers":[["content-type","text/plain"]],"trailers":[["x-sum","1"]],"length":70000,
            "parts":{"claim":7,"count":2}},
            "holder":{"claim":7,"message":8,"until":9,"since":10},"attempts":2,"handed_back":1,
            "not_before":11,"parts":3,"forgotten":true}"#;
        let record: JobRecord = serde_json::from_str(text).expect("a record");
        let again = serde_json::to_value(&record).expect("a record");
        let text: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(again, text);
        assert!(!record.is_key_released);
    }

    #[test]
    fn newer_fields_round_trip() {
        let text = r#"{"nonce":1,"revision":3,"status":"succeeded","created_at":1795000000120,
            "kind":"","title":"a report","key_keeps":"final",
            "callbacks":[{"url":"https://example.com/","events":["job.succeeded"]}],
            "response":{"status":200,"headers":[],"length":70000,
            "parts":{"claim":7,"count":2,"size":65536}},"attempts":2,"key_released":true}"#;
        let record: JobRecord = serde_json::from_str(text).expect("a record");
        let again = serde_json::to_value(&record).expect("a record");
        let text: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(again, text);
        assert!(record.frees_key());
    }

    #[test]
    fn withdrawn_job_has_no_deliveries() {
        let text = r#"{"nonce":1,"revision":1,"status":"queued","created_at":1795000000120,
            "kind":"","callbacks":[{"url":"https://example.com/","events":["job.canceled"]}]}"#;
        let mut record: JobRecord = serde_json::from_str(text).expect("a record");
        let id = JobId::random();
        let deliveries = |record: &JobRecord| Delivery::of_end(&record.snapshot(id)).len();
        let mut canceled = record.clone();
        canceled.end(Event::NoResponse(ErrorCode::Canceled), Duration::ZERO);
        assert_eq!(deliveries(&canceled), 1);
        record.withdraw();
        assert_eq!(deliveries(&record), 0);
        assert!(record.is_ended() && record.forgotten);
    }

    #[test]
    fn streamed_result_has_a_version_of_its_own() {
        let text = r#"{"nonce":1,"revision":3,"status":"succeeded","created_at":1795000000120,
            "kind":"","response":{"status":200,"headers":[],"length":70000,
            "streamed":{"claim":7,"count":2}},"attempts":2}"#;
        let mut record: JobRecord = serde_json::from_str(text).expect("a record");
        let again = serde_json::to_value(&record).expect("a record");
        let text: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(again, text);
        assert_eq!(record.encode(b"")[0], 2);
        // An earlier version ignores the part of a response that broke off.
        record.partial = record.response.take();
        assert_eq!(record.encode(b"")[0], 1);
        let again = serde_json::to_value(&record).expect("a record");
        assert_eq!(again["partial"], text["response"]);
    }
}
