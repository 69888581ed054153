use std::time::SystemTime;

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::owner::Owner;
use super::{ErrorCode, JobId, Progress, Status};
use crate::estimate::Kind;

/// All that can be told about a job at one of its revisions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// The job's name.
    pub id: JobId,
    /// Whom it belongs to.
    pub owner: Option<Owner>,
    /// Counts the job's changes, from 1; two snapshots of one revision are equal.
    pub revision: u64,
    /// Where the job stands.
    pub status: Status,
    /// When the request was taken, by the monotonic clock: what the job's age is told from.
    pub created: Instant,
    /// When the request was taken, by the clock on the wall.
    pub created_at: SystemTime,
    /// When the inner service was called.
    pub started_at: Option<SystemTime>,
    /// When the job ended.
    pub finished_at: Option<SystemTime>,
    /// Until when an ended job is kept; less where its memory is needed.
    pub expires_at: Option<SystemTime>,
    /// The kind of its request, which forecasts are based on. A store whose jobs other processes read
    /// sets it for ended jobs, too, so that those processes learn from them.
    pub kind: Option<Kind>,
    /// When an unfinished job may be done, as far as that can be told.
    pub estimated_finish_at: Option<SystemTime>,
    /// What the inner service last told.
    pub progress: Progress,
    /// The head of the response, where the job ended with one.
    pub response: Option<ResponseHead>,
    /// Why the job failed or was canceled.
    pub error: Option<Failure>,
}

/// The part of a kept response that the status document shows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResponseHead {
    /// The response's status.
    pub status: StatusCode,
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// The length of its body in bytes.
    pub content_length: u64,
}

/// Why a job failed or was canceled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// The status, where there is a response ([`ErrorCode::HttpError`]).
    pub status: Option<StatusCode>,
}
