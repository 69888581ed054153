//! A job in memory that has ended.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::Arc,
};

use http::StatusCode;
use triomphe::ThinArc;

use super::{
    body::StoredBody,
    clock::{Clock, StoredMillis},
    creation::{Creation, JobScope, StartDelay, StoredProgress},
    live::LiveResponse,
    packed::{self, Packed},
};
use crate::{
    job::{ErrorCode, Event, Failure, JobId, Key, Owner, ResponseHead, Snapshot, Status},
    limit::{Budget, Charge, Purpose, progress_price},
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
    /// The reason, if the job ended without a response. The packed bytes are then the part that
    /// was written, if any.
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
        self.budget.release(self.charged as usize, Purpose::Kept);
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
    Response(StatusCode, StoredResponse),
    /// No response, or only a part of one.
    NoResponse(ErrorCode, Option<StoredResponse>),
}

/// A response as the store keeps it.
pub(super) struct StoredResponse {
    pub(super) packed: Packed,
    /// Absent if the body holds it.
    pub(super) charge: Option<Charge>,
}

impl StoredResponse {
    /// Stores a response that has ended after readers could get it.
    pub(super) fn from_live(live: &Arc<LiveResponse>) -> Self {
        let trailers = live.keep();
        let body = StoredBody::Live(live.clone());
        let packed = Packed::new(live.status(), live.headers(), trailers.as_ref(), body);
        // A small body has been copied, and the live response goes with its last reader.
        let is_copied = packed.large.is_none();
        let charge = is_copied.then(|| live.take_charge());
        Self { packed, charge }
    }
}

impl StoredOutcome {
    pub(super) fn event(&self) -> Event {
        match self {
            Self::Response(status, ..) => Event::Responded(*status),
            Self::NoResponse(code, _) => Event::NoResponse(*code),
        }
    }
}

impl EndedJob {
    pub(super) fn new(creation: Creation, scope: Option<Box<JobScope>>, finish: Finish) -> Self {
        let mut all = finish.charge;
        all.keep();
        let (stored, error) = match finish.outcome {
            StoredOutcome::Response(_, response) => (Some(response), None),
            StoredOutcome::NoResponse(code, part) => (part, Some(code)),
        };
        let (packed, body) = match stored {
            Some(StoredResponse { packed, charge }) => {
                if let Some(mut charge) = charge {
                    charge.keep();
                    all.merge(charge);
                }
                (packed.bytes, packed.large)
            }
            None => (Vec::new(), None),
        };
        let progress = finish.progress;
        // This releases the price of the call, and of the head and trailers in maps.
        let price = JobScope::cost(scope.as_deref())
            + progress.as_deref().map_or(0, progress_price)
            + packed.len()
            + body.as_ref().map_or(0, StoredBody::uncharged_bytes);
        all.shrink_to(price);
        let excess = all.bytes().saturating_sub(u32::MAX as usize);
        let excess = (excess > 0).then(|| all.split(excess));
        let (budget, charged) = all.into_parts();
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

    pub(super) fn has_callbacks(&self) -> bool {
        self.scope().is_some_and(|scope| scope.callbacks.is_some())
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
        let (response, partial, error) = self.outcome();
        let progress = self.rare().and_then(|rare| rare.progress.as_deref());
        // One literal: assigning field by field drops the defaults, which costs 3 % of a status
        // read.
        let mut snapshot = Snapshot {
            revision: head.revision.into(),
            status: head.status,
            attempt: head.started.is_some().into(),
            started_at: head.started.map(|delay| creation.started_at(delay)),
            finished_at: Some(creation.system_time(head.finished.get())),
            expires_at: Some(creation.system_time(self.expiry(clock))),
            response,
            partial,
            error,
            ..creation.snapshot(self.scope(), now)
        };
        if let Some(progress) = progress {
            snapshot.set_progress(progress.clone());
        }
        snapshot
    }

    /// Returns the head of the response, that of a part, and the reason for a failure.
    fn outcome(&self) -> (Option<ResponseHead>, Option<ResponseHead>, Option<Failure>) {
        let head = self.is_readable().then(|| {
            let mut head = packed::peek(&self.0.slice);
            if let Some(body) = self.body() {
                head.content_length = body.len();
            }
            head
        });
        match (self.head().error, head) {
            (Some(code), part) => (None, part, Some(Failure::new(code, None))),
            (None, head) => {
                let event = head.as_ref().map(|head| Event::Responded(head.status));
                (head, None, event.and_then(Failure::from_event))
            }
        }
    }

    /// Returns the packed response.
    pub(super) fn packed(&self) -> &[u8] {
        &self.0.slice
    }

    /// Returns `true` if the job has a response, or a part of one.
    pub(super) fn is_readable(&self) -> bool {
        !self.packed().is_empty()
    }

    /// Returns `true` if the job has no response, or only a part of one.
    pub(super) fn is_broken(&self) -> bool {
        self.head().error.is_some()
    }

    /// Returns the bytes of the budget that the job and its result hold.
    pub(super) fn charged(&self) -> usize {
        let rare = self.rare();
        let excess = rare.and_then(|rare| rare._charge.as_ref());
        let live = match self.body() {
            Some(StoredBody::Live(response)) => response.charged(),
            Some(StoredBody::One(_)) | None => 0,
        };
        self.head().charged as usize + excess.map_or(0, Charge::bytes) + live
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

    pub(super) fn body(&self) -> Option<&StoredBody> {
        self.rare()?.body.as_ref()
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
