//! A job at one of its revisions.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    callback::CallbackTarget,
    id::JobId,
    owner::Owner,
    progress::Progress,
    state::{ErrorCode, Event, Status},
};
use crate::estimate::Kind;

/// A job at one of its revisions.
///
/// A store keeps a job as it likes. It creates a snapshot with [`new`](Self::new), assigns what it
/// knows, and moves it on with [`start`](Self::start), [`update`](Self::update) and
/// [`end`](Self::end).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// The job's id.
    pub id: JobId,
    /// The principal that the job belongs to, if there is one.
    pub owner: Option<Owner>,
    /// The title, for people.
    pub title: Option<Arc<str>>,
    /// The receivers that are notified of the job.
    pub callbacks: Option<Arc<[CallbackTarget]>>,
    /// The number of the job's change, from 1. Two snapshots of one revision are equal, except for
    /// their age.
    pub revision: u64,
    /// The job's status.
    pub status: Status,
    /// The number of times that the inner service was called for this job.
    pub attempt: u32,
    /// The time from the request to the read of this snapshot, by a monotonic clock if the store
    /// has one.
    pub age: Duration,
    /// The time of the request.
    pub created_at: SystemTime,
    /// The time at which the inner service was called.
    pub started_at: Option<SystemTime>,
    /// The time at which the job ended.
    pub finished_at: Option<SystemTime>,
    /// The time at which an ended job expires. It may be evicted earlier to free memory.
    pub expires_at: Option<SystemTime>,
    /// The kind of the request, which its estimate is based on. A store may drop it at the end.
    pub kind: Option<Kind>,
    /// The expected end of an unfinished job.
    pub estimated_finish_at: Option<SystemTime>,
    /// The last progress that the inner service reported, without a title.
    pub progress: Progress,
    /// The head of the response, if the job ended with one.
    pub response: Option<ResponseHead>,
    /// The head of a response that broke off, and the length of the part that can be read.
    pub partial: Option<ResponseHead>,
    /// Why the job failed or was canceled.
    pub error: Option<Failure>,
}

impl Snapshot {
    /// Creates the first revision of a queued job without an owner. `created_at` is the time of its
    /// request.
    ///
    /// Its age is the time since then by the system clock.
    pub fn new(id: JobId, created_at: SystemTime) -> Self {
        let age = created_at.elapsed().unwrap_or_default();
        Self::with_age(id, created_at, age)
    }

    /// Creates the same revision of a job of this age.
    pub(crate) fn with_age(id: JobId, created_at: SystemTime, age: Duration) -> Self {
        Self {
            id,
            owner: None,
            title: None,
            callbacks: None,
            revision: 1,
            status: Status::Queued,
            attempt: 0,
            age,
            created_at,
            started_at: None,
            finished_at: None,
            expires_at: None,
            kind: None,
            estimated_finish_at: None,
            progress: Progress::default(),
            response: None,
            partial: None,
            error: None,
        }
    }

    /// Moves a queued job to running, at a new revision. Returns `false` if it is not queued.
    pub fn start(&mut self, at: SystemTime) -> bool {
        let Some(status) = self.status.next(Event::Started) else {
            return false;
        };
        self.revision += 1;
        self.status = status;
        self.attempt += 1;
        self.started_at = Some(at);
        true
    }

    /// Replaces progress and estimate, at a new revision. Returns `false` if the job has ended.
    pub fn update(&mut self, progress: Progress, estimated_finish_at: Option<SystemTime>) -> bool {
        if self.status.is_ended() {
            return false;
        }
        self.revision += 1;
        self.set_progress(progress);
        self.estimated_finish_at = estimated_finish_at;
        true
    }

    /// Replaces the progress. A title in it replaces the job's, and moves there.
    ///
    /// The revision stays. A store calls this for the last progress of a job that ends.
    pub fn set_progress(&mut self, mut progress: Progress) {
        if let Some(title) = progress.title.take() {
            self.title = Some(title);
        }
        self.progress = progress;
    }

    /// Ends the job, at a new revision. Returns `false`, and changes nothing, if it has ended.
    ///
    /// `response` is the head of the response for [`Event::Responded`]. For
    /// [`Event::NoResponse`], it is that of the part that can be read.
    pub fn end(
        &mut self,
        event: Event,
        response: Option<ResponseHead>,
        finished_at: SystemTime,
        expires_at: SystemTime,
    ) -> bool {
        let next = self.status.next(event);
        let Some(status) = next.filter(|status| status.is_ended()) else {
            return false;
        };
        self.revision += 1;
        self.status = status;
        self.finished_at = Some(finished_at);
        self.expires_at = Some(expires_at);
        self.estimated_finish_at = None;
        self.error = Failure::from_event(event);
        (self.response, self.partial) = match event {
            Event::Responded(_) => (response, None),
            Event::Started | Event::NoResponse(_) => (None, response),
        };
        true
    }
}

/// The part of a stored response that the status document shows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResponseHead {
    /// The status of the response.
    pub status: StatusCode,
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// The length of its body in bytes.
    pub content_length: u64,
    /// Its `Retry-After`, which the monitor does not send with the result.
    pub retry_after: Option<Arc<str>>,
}

impl ResponseHead {
    /// Creates the head of a response whose body has this length in bytes.
    pub fn new(status: StatusCode, headers: &HeaderMap, content_length: u64) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).cloned();
        let retry_after = headers.get(header::RETRY_AFTER);
        Self {
            status,
            content_type,
            content_length,
            retry_after: retry_after.and_then(|value| value.to_str().ok().map(Arc::from)),
        }
    }
}

/// Why a job failed or was canceled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The status of the response, for [`ErrorCode::HttpError`].
    pub status: Option<StatusCode>,
}

impl Failure {
    /// Creates a failure. `status` is the status of the response, for [`ErrorCode::HttpError`].
    pub fn new(code: ErrorCode, status: Option<StatusCode>) -> Self {
        Self { code, status }
    }

    /// Returns the failure that an event causes, if it causes one.
    pub fn from_event(event: Event) -> Option<Self> {
        match event {
            Event::NoResponse(code) => Some(Self::new(code, None)),
            Event::Responded(status) if status.as_u16() >= 400 => {
                Some(Self::new(ErrorCode::HttpError, Some(status)))
            }
            Event::Responded(_) | Event::Started => None,
        }
    }

    /// Returns the message that clients show to people.
    pub fn message(&self) -> Cow<'static, str> {
        match (self.code, self.status) {
            (ErrorCode::HttpError, Some(status)) => {
                Cow::Owned(format!("The service answered {status}."))
            }
            _ => Cow::Borrowed(self.code.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_end_of_a_snapshot_holds() {
        let now = SystemTime::now();
        let mut job = Snapshot::new(JobId::random(), now);
        assert!(job.start(now) && !job.start(now));
        assert!(job.end(Event::Responded(StatusCode::NOT_FOUND), None, now, now));
        let code = job.error.map(|failure| failure.code);
        assert_eq!(
            (job.status, code),
            (Status::Failed, Some(ErrorCode::HttpError))
        );
        assert!(!job.end(Event::NoResponse(ErrorCode::Panic), None, now, now));
        assert!(!job.update(Progress::default(), None));
        assert_eq!(job.revision, 3);
    }

    #[test]
    fn progress_without_a_title_keeps_the_title() {
        let mut job = Snapshot::new(JobId::random(), SystemTime::now());
        job.title = Some("a report".into());
        job.update(Progress::default(), None);
        assert_eq!(job.title.as_deref(), Some("a report"));
        let title = Some("another".into());
        let progress = Progress {
            title,
            ..Progress::default()
        };
        job.update(progress, None);
        assert_eq!(job.title.as_deref(), Some("another"));
        assert_eq!(job.progress, Progress::default());
    }
}
