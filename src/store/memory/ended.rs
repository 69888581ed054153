//! A job in memory that has ended.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use triomphe::ThinArc;

use super::{
    body::StoredBody,
    clock::{Clock, StoredMillis},
    creation::{Creation, JobScope, StartDelay, StoredProgress},
    packed::{self, Packed},
};
use crate::{
    job::{ErrorCode, Event, Failure, JobId, Key, Owner, ResponseHead, Snapshot, Status},
    limit::{Budget, Charge, Purpose},
    store::{Reading, ResultBody},
};

/// A job that has ended, in one allocation: its head, and its packed response behind it.
///
/// There may be a million, and most are never read. A map of them has one pointer for each, and a
/// reader finds everything in one place.
#[derive(Clone)]
pub(super) struct EndedJob(ThinArc<EndedHead, u8>);

/// The fields of a [`Creation`] and of a [`Charge`], without their padding: 64 bytes.
struct EndedHead {
    id: JobId,
    rare: Option<Box<RareParts>>,
    budget: Budget,
    /// The bytes of the budget that the job and its result hold until the job's last share is
    /// dropped.
    charged: u32,
    created: StoredMillis,
    created_at: StoredMillis,
    /// In milliseconds since the epoch of the store.
    finished: StoredMillis,
    started: Option<StartDelay>,
    revision: u32,
    status: Status,
    /// The reason, if the job ended without a response.
    error: Option<ErrorCode>,
}

/// The parts that most jobs do not have.
struct RareParts {
    scope: Option<Box<JobScope>>,
    progress: StoredProgress,
    /// A body that is too large to be packed.
    body: Option<StoredBody>,
    /// The part of the charge beyond 4 GiB.
    _charge: Option<Charge>,
}

impl Drop for EndedHead {
    fn drop(&mut self) {
        self.budget
            .release(self.charged as usize, Purpose::Accepted);
    }
}

/// The end of a job.
pub(super) struct Finish {
    pub(super) revision: u32,
    pub(super) status: Status,
    pub(super) started: Option<StartDelay>,
    pub(super) finished: u64,
    pub(super) progress: StoredProgress,
    pub(super) outcome: StoredOutcome,
    pub(super) charge: Charge,
}

/// The outcome of a call, as the store keeps it.
pub(super) enum StoredOutcome {
    /// A response, and its charge unless the body holds it.
    Response(StatusCode, Packed, Option<Charge>),
    NoResponse(ErrorCode),
}

impl StoredOutcome {
    pub(super) fn event(&self) -> Event {
        match self {
            Self::Response(status, ..) => Event::Responded(*status),
            Self::NoResponse(code) => Event::NoResponse(*code),
        }
    }
}

impl EndedJob {
    pub(super) fn new(creation: Creation, scope: Option<Box<JobScope>>, finish: Finish) -> Self {
        let mut all = finish.charge;
        let (packed, body, error) = match finish.outcome {
            StoredOutcome::Response(_, packed, charge) => {
                if let Some(charge) = charge {
                    all.merge(charge);
                }
                (packed.bytes, packed.large, None)
            }
            StoredOutcome::NoResponse(code) => (Vec::new(), None, Some(code)),
        };
        all.transfer(Purpose::Accepted);
        let excess = all.bytes().saturating_sub(u32::MAX as usize);
        let excess = (excess > 0).then(|| all.split(excess));
        let (budget, charged) = all.into_parts();
        let progress = finish.progress;
        let is_rare = scope.is_some() || progress.is_some() || body.is_some() || excess.is_some();
        let head = EndedHead {
            id: creation.id,
            budget,
            charged: u32::try_from(charged).unwrap_or(u32::MAX),
            created: StoredMillis::new(creation.created),
            created_at: StoredMillis::new(creation.created_at),
            finished: StoredMillis::new(finish.finished),
            rare: is_rare.then(|| {
                Box::new(RareParts {
                    scope,
                    progress,
                    body,
                    _charge: excess,
                })
            }),
            started: finish.started,
            revision: finish.revision,
            status: finish.status,
            error,
        };
        let ended = Self(ThinArc::from_header_and_slice(head, &packed));
        Packed::recycle(packed);
        ended
    }

    pub(super) fn creation(&self) -> Creation {
        let head = self.head();
        Creation {
            id: head.id,
            created: head.created.get(),
            created_at: head.created_at.get(),
        }
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.scope()?.owner
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.scope()?.key
    }

    /// Returns when the job expires, in milliseconds since the epoch of the store.
    pub(super) fn expiry(&self, clock: &Clock) -> u64 {
        clock.expiry(self.head().finished.get())
    }

    pub(super) fn is_expired(&self, clock: &Clock, now: u64) -> bool {
        self.expiry(clock) <= now
    }

    pub(super) fn snapshot(&self, clock: &Clock, now: u64) -> Snapshot {
        let head = self.head();
        let creation = self.creation();
        let (response, error) = self.outcome();
        let progress = self.rare().and_then(|rare| rare.progress.as_deref());
        // One literal: assigning field by field drops the defaults, which costs 3 % of a status
        // read.
        Snapshot {
            revision: head.revision.into(),
            status: head.status,
            attempt: head.started.is_some().into(),
            started_at: head.started.map(|delay| creation.started_at(delay)),
            finished_at: Some(creation.system_time(head.finished.get())),
            expires_at: Some(creation.system_time(self.expiry(clock))),
            progress: progress.cloned().unwrap_or_default(),
            response,
            error,
            ..creation.snapshot(self.scope(), now)
        }
    }

    fn outcome(&self) -> (Option<ResponseHead>, Option<Failure>) {
        if let Some(code) = self.head().error {
            return (None, Some(Failure::new(code, None)));
        }
        let mut head = packed::peek(&self.0.slice);
        if let Some(body) = self.body() {
            head.content_length = body.len();
        }
        let event = Event::Responded(head.status);
        (Some(head), Failure::from_event(event))
    }

    /// Reads the response from byte `from` of its body on.
    ///
    /// Its fields and its body are shares of this job, which holds the charge of all of it.
    pub(super) fn read(&self, from: u64) -> Option<Reading> {
        if self.head().error.is_some() {
            return None;
        }
        let unpacked = packed::unpack(&Bytes::from_owner(PackedBytes(self.clone())));
        let (length, body) = match self.body() {
            Some(StoredBody::Live(response)) => (response.len(), response.read_body(from)),
            Some(StoredBody::One(_)) => {
                let bytes = Bytes::from_owner(LargeBody(self.clone()));
                buffered(bytes, unpacked.trailers, from)
            }
            None => buffered(unpacked.body, unpacked.trailers, from),
        };
        let mut response = Response::new(body);
        *response.status_mut() = unpacked.status;
        *response.headers_mut() = unpacked.headers;
        Some(Reading::new(1, length, response))
    }

    fn head(&self) -> &EndedHead {
        &self.0.header.header
    }

    fn rare(&self) -> Option<&RareParts> {
        self.head().rare.as_deref()
    }

    fn scope(&self) -> Option<&JobScope> {
        self.rare()?.scope.as_deref()
    }

    fn body(&self) -> Option<&StoredBody> {
        self.rare()?.body.as_ref()
    }
}

/// Returns the length of a body in memory, and the body from byte `from` on.
fn buffered(mut bytes: Bytes, trailers: Option<http::HeaderMap>, from: u64) -> (u64, ResultBody) {
    let length = bytes.len();
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(length);
    let rest = bytes.split_off(from);
    (length as u64, ResultBody::new(rest, trailers))
}

/// The packed response of a job, which keeps the job.
struct PackedBytes(EndedJob);

impl AsRef<[u8]> for PackedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.0.slice
    }
}

/// The large body of a job, which keeps the job.
struct LargeBody(EndedJob);

impl AsRef<[u8]> for LargeBody {
    fn as_ref(&self) -> &[u8] {
        match self.0.body() {
            Some(StoredBody::One(bytes)) => bytes,
            Some(StoredBody::Live(_)) | None => &[],
        }
    }
}

// An ended job is found by its id.

impl Borrow<JobId> for EndedJob {
    fn borrow(&self) -> &JobId {
        &self.head().id
    }
}

impl Hash for EndedJob {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.head().id.hash(state);
    }
}

impl PartialEq for EndedJob {
    fn eq(&self, other: &Self) -> bool {
        self.head().id == other.head().id
    }
}

impl Eq for EndedJob {}
