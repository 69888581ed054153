//! A job as JSON: the members of the status document without links, and what operators ask for.

use std::{borrow::Cow, time::SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use tower_accepted::{ErrorCode, Failure, JobId, Owner, ResponseHead, Snapshot, Status};

/// A job as JSON. A member without a value is omitted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobDocument<'a> {
    id: JobId,
    status: Status,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_finish_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_complete: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureDocument>,
    /// Not in the status document, as are all below.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    attempts: u32,
    /// The digest of the owner's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseDocument<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    content_length: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct FailureDocument {
    code: ErrorCode,
    message: Cow<'static, str>,
}

impl<'a> JobDocument<'a> {
    pub(super) fn new(job: &'a Snapshot) -> Self {
        Self {
            id: job.id,
            status: job.status,
            created_at: millis(job.created_at),
            started_at: job.started_at.map(millis),
            estimated_finish_at: job.estimated_finish_at.map(millis),
            finished_at: job.finished_at.map(millis),
            expires_at: job.expires_at.map(millis),
            title: job.title.as_deref(),
            percent_complete: job.progress.fraction.map(percent),
            message: job.progress.message.as_deref(),
            response: job.response.as_ref().map(ResponseDocument::new),
            error: job.error.as_ref().map(FailureDocument::new),
            kind: job.kind.as_ref().map(|kind| kind.as_str()),
            attempts: job.attempt,
            owner: job.owner.as_ref().map(Owner::to_string),
        }
    }
}

impl<'a> ResponseDocument<'a> {
    fn new(head: &'a ResponseHead) -> Self {
        let content_type = head.content_type.as_ref();
        Self {
            status: head.status.as_u16(),
            content_type: content_type.and_then(|value| value.to_str().ok()),
            content_length: head.content_length,
            retry_after: head.retry_after.as_deref(),
        }
    }
}

impl FailureDocument {
    fn new(failure: &Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message(),
        }
    }
}

/// Returns whole percents, rounded down. The summand makes up for binary fractions.
pub(super) fn percent(fraction: f64) -> u8 {
    (fraction * 100.0 + 1e-9).floor().clamp(0.0, 100.0) as u8
}

/// Returns a time as in RFC 3339, in UTC and to the millisecond.
pub(super) fn millis(at: SystemTime) -> String {
    format!("{:.3}", timestamp(at))
}

/// Returns a time as in RFC 3339, in UTC and to the second.
pub(super) fn seconds(at: SystemTime) -> String {
    format!("{:.0}", timestamp(at))
}

/// A time beyond the calendar becomes its last one.
fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::MAX)
}
