use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use http::Response;
use triomphe::ThinArc;

use super::{
    clock::Clock,
    job::{Began, Birth, Bound, Kept, Told, cost, shown_progress},
    packed::{self, Packed},
};
use crate::{
    config::Key,
    job::{ErrorCode, Failure, JobId, Owner, ResponseHead, Snapshot, Status},
    limit::Charge,
    middleware::Replay,
};

/// A job that has ended, in one allocation: what is told of it, and behind that its response.
///
/// There may be a million, and most are never looked at again: so a map of them has no more than a pointer
/// to each, and who looks at one finds all of it in one place.
#[derive(Clone)]
pub(super) struct Ended(ThinArc<Head, u8>);

struct Head {
    birth: Birth,
    /// In milliseconds since the epoch of the store.
    finished: u64,
    rare: Option<Box<Rare>>,
    began: Option<Began>,
    /// What it holds of the budget for its result, to be released by who removes the job; as far as that goes
    /// in here.
    charged: u32,
    revision: u32,
    status: Status,
    /// Why there is no response.
    broke: Option<ErrorCode>,
}

/// What most jobs have nothing of.
struct Rare {
    bound: Option<Bound>,
    progress: Told,
    /// What more it holds of the budget.
    charged: usize,
    /// A body that is too large to be moved behind the head.
    body: Option<Bytes>,
}

/// How a job has ended.
pub(super) struct Finish {
    pub(super) revision: u32,
    pub(super) status: Status,
    pub(super) began: Option<Began>,
    pub(super) finished: u64,
    pub(super) progress: Told,
    pub(super) kept: Kept,
}

impl Ended {
    pub(super) fn new(birth: Birth, bound: Option<Bound>, finish: Finish) -> Self {
        let (packed, body, charge, broke) = match finish.kept {
            Kept::Response(packed, charge) => (packed.bytes, packed.large, charge, None),
            Kept::Nothing(code) => (Vec::new(), None, None, Some(code)),
        };
        let progress = finish.progress;
        let charged = charge.map_or(0, Charge::keep);
        let here = u32::try_from(charged).unwrap_or(u32::MAX);
        let more = charged - here as usize;
        let is_rare = bound.is_some() || progress.is_some() || body.is_some() || more > 0;
        let head = Head {
            birth,
            finished: finish.finished,
            rare: is_rare.then(|| {
                Box::new(Rare {
                    bound,
                    progress,
                    charged: more,
                    body,
                })
            }),
            began: finish.began,
            charged: here,
            revision: finish.revision,
            status: finish.status,
            broke,
        };
        let ended = Self(ThinArc::from_header_and_slice(head, &packed));
        Packed::spare(packed);
        ended
    }

    pub(super) fn birth(&self) -> &Birth {
        &self.head().birth
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.bound()?.owner
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.bound()?.key
    }

    /// When it expires, in milliseconds since the epoch of the store.
    pub(super) fn expiry(&self, clock: &Clock) -> u64 {
        clock.expiry(self.head().finished)
    }

    pub(super) fn is_expired(&self, clock: &Clock) -> bool {
        self.expiry(clock) <= clock.now()
    }

    /// What the job holds of the budget.
    pub(super) fn charged(&self) -> usize {
        let more = self.rare().map_or(0, |rare| rare.charged);
        cost(self.bound().is_some()) + self.head().charged as usize + more
    }

    pub(super) fn snapshot(&self, clock: &Clock) -> Snapshot {
        let head = self.head();
        let birth = &head.birth;
        let (response, error) = self.glance();
        Snapshot {
            revision: head.revision.into(),
            status: head.status,
            started_at: head.began.map(|began| birth.started_at(began)),
            finished_at: Some(birth.shown(head.finished)),
            expires_at: Some(birth.shown(self.expiry(clock))),
            progress: self
                .rare()
                .map(|rare| shown_progress(&rare.progress))
                .unwrap_or_default(),
            response,
            error,
            ..birth.snapshot(self.owner(), clock)
        }
    }

    fn glance(&self) -> (Option<ResponseHead>, Option<Failure>) {
        if let Some(code) = self.head().broke {
            return (None, Some(Failure { code, status: None }));
        }
        let (status, content_type, packed) = packed::glance(&self.0.slice);
        let error = (status.as_u16() >= 400).then_some(Failure {
            code: ErrorCode::HttpError,
            status: Some(status),
        });
        let length = self.large().map_or(packed, Bytes::len);
        let head = ResponseHead {
            status,
            content_type,
            content_length: length as u64,
        };
        (Some(head), error)
    }

    /// The response, whose fields and body are shares of what is kept: of all of it, a large body included, as
    /// long as anybody holds one.
    pub(super) fn response(&self) -> Option<Response<Replay>> {
        if self.head().broke.is_some() {
            return None;
        }
        let unpacked = packed::unpack(&Bytes::from_owner(Slice(self.clone())));
        let body = self.large().cloned().unwrap_or(unpacked.body);
        let mut response = Response::new(Replay::new(body, unpacked.trailers));
        *response.status_mut() = unpacked.status;
        *response.headers_mut() = unpacked.headers;
        Some(response)
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn rare(&self) -> Option<&Rare> {
        self.head().rare.as_deref()
    }

    fn bound(&self) -> Option<Bound> {
        self.rare()?.bound
    }

    fn large(&self) -> Option<&Bytes> {
        self.rare()?.body.as_ref()
    }
}

/// The packed response of a job, which is kept for as long as a share of it is.
struct Slice(Ended);

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.0.0.slice
    }
}

// A job is found by its id.

impl Borrow<JobId> for Ended {
    fn borrow(&self) -> &JobId {
        &self.birth().id
    }
}

impl Hash for Ended {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.birth().id.hash(state);
    }
}

impl PartialEq for Ended {
    fn eq(&self, other: &Self) -> bool {
        self.birth().id == other.birth().id
    }
}

impl Eq for Ended {}
