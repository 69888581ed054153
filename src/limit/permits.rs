//! The permits of unfinished jobs, counted for the process and for each owner.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use tokio::sync::Notify;

use crate::{job::Owner, telemetry::GaugeGuard};

/// Counts the requests that this process has taken on and not finished.
///
/// A [`Permit`] is acquired before a request's body is read and released when the call's future is
/// dropped. So the count covers a job from its first byte on, and a canceled call while it still
/// runs.
#[derive(Clone)]
pub(crate) struct Permits {
    state: Arc<PermitState>,
}

struct PermitState {
    /// The number of permits acquired, and [`CLOSED`]. One word, so that one step tests "not closed
    /// and not full" and acquires: no permit can be acquired behind a drain that saw none.
    /// `AcqRel` on release, so that a drain which sees the count fall sees what the call did.
    acquired: AtomicUsize,
    /// The number of [`JobPermit`]s. Each changes it before it releases its permit, so a drain that
    /// reads `acquired` with `Acquire` sees the change.
    jobs: AtomicUsize,
    limit: usize,
    /// The permits of each owner, if they are limited; owners without any are absent. Guards are
    /// held for one count, while no other lock is.
    owners: DashMap<Owner, usize>,
    owner_limit: Option<usize>,
    /// Notified of each release after a close.
    released: Notify,
}

/// The bit of [`PermitState::acquired`] that stops further permits.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Why a permit was not acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PermitError {
    Full,
    OwnerFull,
    Draining,
}

impl Permits {
    /// Creates `limit` permits. One owner may hold at most `owner_limit` of them.
    pub(crate) fn new(limit: usize, owner_limit: Option<usize>) -> Self {
        Self {
            state: Arc::new(PermitState {
                acquired: AtomicUsize::new(0),
                jobs: AtomicUsize::new(0),
                limit: limit.min(CLOSED - 1),
                owners: DashMap::new(),
                owner_limit,
                released: Notify::new(),
            }),
        }
    }

    /// Acquires a permit for a request of `owner`.
    pub(crate) fn acquire(&self, owner: Option<Owner>) -> Result<Permit, PermitError> {
        let mut permit = self.acquire_if(|acquired| acquired < self.state.limit)?;
        if let (Some(limit), Some(owner)) = (self.state.owner_limit, owner) {
            match self.state.owners.entry(owner) {
                Entry::Occupied(mut count) if *count.get() < limit => *count.get_mut() += 1,
                Entry::Vacant(entry) if limit > 0 => {
                    entry.insert(1);
                }
                _ => return Err(PermitError::OwnerFull),
            }
            permit.owner = Some(Box::new(owner));
        }
        Ok(permit)
    }

    /// Acquires a permit beyond the limit, for a request that was admitted by another process.
    ///
    /// Fails once the permits are closed.
    pub(crate) fn acquire_beyond_limit(&self) -> Result<Permit, PermitError> {
        self.acquire_if(|acquired| acquired & CLOSED == 0)
    }

    fn acquire_if(&self, may_acquire: impl Fn(usize) -> bool) -> Result<Permit, PermitError> {
        let next = |acquired| may_acquire(acquired).then_some(acquired + 1);
        let acquired = &self.state.acquired;
        match acquired.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(Permit {
                permits: self.clone(),
                owner: None,
                _gauge: GaugeGuard::unfinished(),
            }),
            Err(acquired) if acquired & CLOSED == 0 => Err(PermitError::Full),
            Err(_) => Err(PermitError::Draining),
        }
    }

    /// Stops further permits.
    pub(crate) fn close(&self) {
        self.state.acquired.fetch_or(CLOSED, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.acquired.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Returns the number of permits acquired.
    pub(crate) fn count(&self) -> usize {
        self.state.acquired.load(Ordering::Relaxed) & !CLOSED
    }

    /// Returns the number of permits of jobs.
    pub(crate) fn jobs(&self) -> usize {
        // Both loads in this order: see `PermitState::jobs`.
        self.state.acquired.load(Ordering::Acquire);
        self.state.jobs.load(Ordering::Relaxed)
    }

    /// Waits until every permit is released. The permits must be closed.
    pub(crate) async fn emptied(&self) {
        let acquired = &self.state.acquired;
        self.released_until(|| acquired.load(Ordering::Acquire) & !CLOSED == 0)
            .await;
    }

    /// Waits until the permits of all jobs are released. The permits must be closed.
    pub(crate) async fn jobs_ended(&self) {
        self.released_until(|| self.jobs() == 0).await;
    }

    async fn released_until(&self, is_done: impl Fn() -> bool) {
        // Enabled before the count is read: the last release is either seen or wakes this.
        let released = self.state.released.notified();
        tokio::pin!(released);
        loop {
            released.as_mut().enable();
            if is_done() {
                return;
            }
            released.as_mut().await;
            released.set(self.state.released.notified());
        }
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("acquired", &self.count())
            .field("limit", &self.state.limit)
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The right to one unfinished request, released on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Permits,
    /// The owner, if permits are limited for each owner.
    owner: Option<Box<Owner>>,
    _gauge: GaugeGuard,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let state = &self.permits.state;
        if let Some(owner) = self.owner.as_deref() {
            if let Some(mut count) = state.owners.get_mut(owner) {
                *count -= 1;
            }
            state.owners.remove_if(owner, |_, count| *count == 0);
        }
        if state.acquired.fetch_sub(1, Ordering::AcqRel) & CLOSED != 0 {
            state.released.notify_waiters();
        }
    }
}

/// The permit of an accepted request. A drain counts these, not the requests that are still being
/// read or answered inline.
#[derive(Debug)]
pub(crate) struct JobPermit(Permit);

impl Permit {
    /// Makes this the permit of a job.
    pub(crate) fn into_job(self) -> JobPermit {
        self.permits.state.jobs.fetch_add(1, Ordering::Relaxed);
        JobPermit(self)
    }
}

impl Drop for JobPermit {
    fn drop(&mut self) {
        // Before the permit, which is dropped next and releases this change.
        self.0.permits.state.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn released_permits_can_be_acquired_again() {
        let permits = Permits::new(2, None);
        let first = permits.acquire(None).expect("free");
        let _second = permits.acquire(None).expect("free");
        assert_eq!(permits.acquire(None).expect_err("full"), PermitError::Full);
        drop(first);
        assert!(permits.acquire(None).is_ok());
    }

    #[test]
    fn each_owner_has_a_limit() {
        let permits = Permits::new(3, Some(1));
        let [me, you] = ["me", "you"].map(|name| Some(Owner::new(name)));
        let mine = permits.acquire(me).expect("free");
        let refused = permits.acquire(me).expect_err("full");
        assert_eq!(refused, PermitError::OwnerFull);
        let _others = [permits.acquire(you), permits.acquire(None)];
        assert_eq!(permits.acquire(you).expect_err("full"), PermitError::Full);
        drop(mine);
        assert_eq!(permits.state.owners.len(), 1, "owners without permits go");
        assert!(permits.acquire(me).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn emptied_waits_for_every_permit() {
        let permits = Permits::new(2, None);
        let permit = permits.acquire(None).expect("free");
        permits.close();
        let emptied = tokio::spawn({
            let permits = permits.clone();
            async move { permits.emptied().await }
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!emptied.is_finished());
        let refused = permits.acquire(None).expect_err("closed");
        assert_eq!(refused, PermitError::Draining);
        drop(permit);
        emptied.await.expect("no panic");
    }
}
