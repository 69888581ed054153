//! The parts of a job in memory that it has from its creation on, unfinished or ended.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::clock::at_unix_millis;
use crate::{
    config::Outcomes,
    job::{CallbackTarget, Cursor, JobId, Key, Owner, Progress, Snapshot},
};

/// The bytes that a job counts in the budget besides its result: about the heap size of an ended
/// job.
const JOB_BYTES: usize = 320;

/// The bytes that a scope adds to that, including its entries in indexes.
const SCOPE_BYTES: usize = 192;

/// The id and the creation time of a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creation {
    pub(super) id: JobId,
    /// In milliseconds since the epoch of the store.
    pub(super) created: u64,
    /// In milliseconds since the Unix epoch.
    pub(super) created_at: u64,
}

/// The parts of [`NewJob`](crate::store::NewJob) that few jobs have. They never change.
#[derive(Debug, Clone, Default)]
pub(super) struct JobScope {
    pub(super) owner: Option<Owner>,
    pub(super) key: Option<Key>,
    /// The outcomes that the key keeps.
    pub(super) outcomes: Outcomes,
    pub(super) title: Option<Arc<str>>,
    pub(super) callbacks: Option<Arc<[CallbackTarget]>>,
}

/// The milliseconds from a job's creation to its call, counted from 1, so that `Option` takes no
/// room. At most 49 days.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartDelay(NonZeroU32);

/// The progress that a call has reported. Boxed, because most report nothing.
pub(super) type StoredProgress = Option<Box<Progress>>;

impl Creation {
    pub(super) fn cursor(&self) -> Cursor {
        Cursor::from_unix_millis(self.created_at, self.id)
    }

    /// Converts a time of the store's clock to the system clock.
    pub(super) fn system_time(&self, at: u64) -> SystemTime {
        let age = Duration::from_millis(at.saturating_sub(self.created));
        at_unix_millis(self.created_at) + age
    }

    /// Returns the delay of a call that started at `at`, by the store's clock.
    pub(super) fn start_delay(&self, at: u64) -> StartDelay {
        let millis = u32::try_from(at.saturating_sub(self.created)).unwrap_or(u32::MAX);
        StartDelay(NonZeroU32::MIN.saturating_add(millis))
    }

    /// Returns when the call started.
    pub(super) fn started_at(&self, StartDelay(delay): StartDelay) -> SystemTime {
        self.system_time(self.created + u64::from(delay.get() - 1))
    }

    /// Returns a snapshot with the parts that never change, read at `now` by the store's clock.
    pub(super) fn snapshot(&self, scope: Option<&JobScope>, now: u64) -> Snapshot {
        let age = Duration::from_millis(now.saturating_sub(self.created));
        let mut job = Snapshot::with_age(self.id, at_unix_millis(self.created_at), age);
        if let Some(scope) = scope {
            job.owner = scope.owner;
            job.title = scope.title.clone();
            job.callbacks = scope.callbacks.clone();
        }
        job
    }
}

impl JobScope {
    /// Returns the bytes that a job counts in the budget besides its result.
    pub(super) fn cost(scope: Option<&Self>) -> usize {
        let text = |scope: &Self| {
            let title = scope.title.as_ref().map_or(0, |title| title.len());
            let callbacks = scope.callbacks.iter().flat_map(|targets| targets.iter());
            let callbacks: usize = callbacks
                .map(|target| {
                    target.url.len()
                        + target.monitor.len()
                        + target.events.iter().map(String::len).sum::<usize>()
                })
                .sum();
            SCOPE_BYTES + title + callbacks
        };
        JOB_BYTES + scope.map_or(0, text)
    }
}
