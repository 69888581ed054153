use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    clock::{instant, millis, now, time, whole_millis},
    envelope::StoredFields,
    request::QueuedRequest,
};
use crate::{
    config::Key,
    estimate::Kind,
    job::{ErrorCode, Event, Failure, JobId, Owner, Progress, ResponseHead, Snapshot, Status},
    limit::Collected,
    store::NewJob,
};

/// A job as the bucket has it, from the time it is claimed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JobRecord {
    /// Tells a write whose answer was lost from somebody else's.
    pub(super) nonce: u64,
    pub(super) revision: u64,
    pub(super) status: Status,
    /// This and all times: milliseconds since the epoch of Unix.
    pub(super) created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    /// What kind of request it was made of.
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) estimated_finish_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fraction: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<StoredResponse>,
    /// Who runs it; nobody where it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<ClaimHolder>,
    /// How often it was begun.
    #[serde(default)]
    pub(super) attempts: u32,
    /// How often of these its process handed it back when it was shut down.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) handed_back: u32,
    /// Before when it is not to be begun again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<u64>,
    /// In how many parts the request's body is, where it is not with the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<u32>,
    /// Whether it is to be as if it had never been.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) forgotten: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How much further the revision of an end is than that of the run that was known when it was made: a
/// report that was on its way then is not to be taken for it.
const END_STEP: u64 = 1 << 20;

/// The response of an ended job. Its body follows the record, or is in parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredResponse {
    pub(super) status: u16,
    pub(super) headers: StoredFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trailers: Option<StoredFields>,
    pub(super) length: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<ChunkedBody>,
}

/// Where a result's body is, if it is not with its record. The claim is in its name, so that two
/// processes that both believe the job theirs do not mix their results.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ChunkedBody {
    pub(super) claim: u64,
    pub(super) count: u32,
}

/// The right to end a job, as the others see it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ClaimHolder {
    pub(super) claim: u64,
    /// Which message of the queue it was claimed for, where there was one: of a request whose writing
    /// had to be repeated there may be two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<u64>,
    /// Until when it holds without a sign of life, where no message of the queue tells: the job was
    /// begun by the process that took its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
    /// When it wrote the record itself: what keeps that from expiring leaves this as it is.
    #[serde(default)]
    pub(super) since: u64,
}

impl JobRecord {
    /// A job that its process runs itself.
    pub(super) fn here(new: &NewJob, asked: &QueuedRequest, holder: ClaimHolder) -> Self {
        let started = new
            .started
            .map(|at| whole_millis(at.saturating_duration_since(new.created)))
            .map(|waited| asked.created_at.saturating_add(waited));
        Self {
            status: match started {
                None => Status::Queued,
                Some(_) => Status::Running,
            },
            started_at: started,
            fraction: new.progress.fraction,
            message: new.progress.message.as_deref().map(str::to_owned),
            holder: Some(holder),
            attempts: 1,
            ..Self::queued(asked)
        }
    }

    /// A job that waits in the queue, at its first revision.
    pub(super) fn queued(asked: &QueuedRequest) -> Self {
        Self {
            nonce: 0,
            revision: 1,
            status: Status::Queued,
            created_at: asked.created_at,
            started_at: None,
            finished_at: None,
            expires_at: None,
            kind: asked.kind.clone(),
            estimated_finish_at: asked.estimated_finish_at,
            owner: asked.owner,
            key: asked.key,
            fraction: None,
            message: None,
            error: None,
            response: None,
            holder: None,
            attempts: 0,
            handed_back: 0,
            not_before: None,
            parts: asked.parts,
            forgotten: false,
        }
    }

    /// Somebody who was handed this message has begun to run it.
    pub(super) fn claim(&mut self, claim: u64, message: u64) {
        self.revision += 1;
        self.status = Status::Running;
        self.started_at.get_or_insert_with(now);
        self.holder = Some(ClaimHolder {
            claim,
            message: Some(message),
            until: None,
            since: now(),
        });
        self.attempts += 1;
        self.not_before = None;
    }

    /// Its process lets it be run once more, at once.
    pub(super) fn hand_back(&mut self) {
        self.handed_back += 1;
        self.let_go(Duration::ZERO);
    }

    /// Nobody runs it any more, and it is to be run once more after this pause.
    pub(super) fn let_go(&mut self, pause: Duration) {
        self.revision += 1;
        self.holder = None;
        self.not_before = (!pause.is_zero()).then(|| now().saturating_add(whole_millis(pause)));
    }

    /// How many processes have been gone over it, if whoever has it is.
    pub(super) fn deaths(&self) -> u32 {
        self.attempts.saturating_sub(self.handed_back)
    }

    /// How long it is not to be begun.
    pub(super) fn pause(&self) -> Duration {
        let left = self.not_before.map_or(0, |at| at.saturating_sub(now()));
        Duration::from_millis(left)
    }

    /// What the call has told since.
    pub(super) fn tell(&mut self, told: &PendingReport) {
        if let Some(at) = told.started {
            self.start(at);
        }
        if let Some(progress) = &told.progress {
            self.progress(progress);
        }
        if told.estimated_finish.is_some() {
            self.revision += 1;
            self.estimated_finish_at = told.estimated_finish.map(millis);
        }
    }

    /// Its call has begun, where that was not so from the claim on.
    pub(super) fn start(&mut self, at: SystemTime) {
        if let Some(status) = self.status.next(Event::Started) {
            self.revision += 1;
            self.status = status;
            self.started_at = Some(millis(at));
        }
    }

    pub(super) fn progress(&mut self, progress: &Progress) {
        self.revision += 1;
        self.fraction = progress.fraction;
        self.message = progress.message.as_deref().map(str::to_owned);
    }

    pub(super) fn end(&mut self, event: Event, retain: Duration) {
        let finished = now();
        self.revision += END_STEP;
        self.status = self.status.next(event).unwrap_or(self.status);
        self.finished_at = Some(finished);
        self.expires_at = Some(finished.saturating_add(whole_millis(retain)));
        self.holder = None;
        self.not_before = None;
        self.estimated_finish_at = None;
        self.error = match event {
            Event::Started => None,
            Event::Broke(code) => Some(code),
            Event::Responded(status) => (status.as_u16() >= 400).then_some(ErrorCode::HttpError),
        };
    }

    pub(super) fn is_held_by(&self, claim: u64) -> bool {
        self.holder.is_some_and(|holder| holder.claim == claim)
    }

    /// Whether the process that took its request was to begin it, and has let its lease end or has given it back.
    pub(super) fn is_abandoned(&self) -> bool {
        let is_left = |holder: ClaimHolder| holder.until.is_some_and(|until| until <= now());
        !self.is_ended() && self.holder.is_none_or(is_left)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.status.is_ended()
    }

    pub(super) fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires| expires <= now())
    }

    pub(super) fn snapshot(&self, id: JobId) -> Snapshot {
        let response = self.response.as_ref().map(StoredResponse::glance);
        Snapshot {
            id,
            owner: self.owner,
            revision: self.revision,
            status: self.status,
            created: instant(self.created_at),
            created_at: time(self.created_at),
            started_at: self.started_at.map(time),
            finished_at: self.finished_at.map(time),
            expires_at: self.expires_at.map(time),
            kind: (!self.is_ended()).then(|| Kind::new(&self.kind)),
            estimated_finish_at: self.estimated_finish_at.map(time),
            progress: Progress {
                fraction: self.fraction,
                message: self.message.as_deref().map(Arc::from),
            },
            error: self.error.map(|code| Failure {
                code,
                status: response
                    .as_ref()
                    .filter(|_| code == ErrorCode::HttpError)
                    .map(|response| response.status),
            }),
            response,
        }
    }
}

impl StoredResponse {
    pub(super) fn new(response: &Response<Collected>) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().into(),
            trailers: response.body().trailers.as_deref().map(StoredFields::from),
            length: response.body().bytes.len() as u64,
            parts: None,
        }
    }

    fn glance(&self) -> ResponseHead {
        ResponseHead {
            status: self.status(),
            content_type: self.headers.get(&header::CONTENT_TYPE),
            content_length: self.length,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The head, and the trailers.
    pub(super) fn into_head(self) -> (Response<()>, Option<HeaderMap>) {
        let mut response = Response::new(());
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers.into();
        (response, self.trailers.map(HeaderMap::from))
    }
}

/// What a call has told, and is not written yet.
#[derive(Debug, Clone, Default)]
pub(super) struct PendingReport {
    pub(super) started: Option<SystemTime>,
    pub(super) progress: Option<Progress>,
    pub(super) estimated_finish: Option<SystemTime>,
}

impl PendingReport {
    pub(super) fn is_empty(&self) -> bool {
        self.started.is_none() && self.progress.is_none() && self.estimated_finish.is_none()
    }

    /// What comes after it counts.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            started: self.started.or(earlier.started),
            progress: self.progress.or(earlier.progress),
            estimated_finish: self.estimated_finish.or(earlier.estimated_finish),
        }
    }
}

/// What a key was used for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) nonce: u64,
    pub(super) id: IdText,
    pub(super) fingerprint: crate::config::Fingerprint,
}

/// A job in its owner's list; and of any record, when its job was made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct OwnerEntry {
    pub(super) created_at: u64,
}

/// An id as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct IdText(pub(super) JobId);

impl From<IdText> for String {
    fn from(id: IdText) -> Self {
        id.0.to_string()
    }
}

impl TryFrom<String> for IdText {
    type Error = crate::job::ParseJobIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}
