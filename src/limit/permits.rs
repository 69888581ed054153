use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{job::Owner, stop::Interrupts, telemetry::Counted};

/// Counts what this process has taken on and not finished, and closes for a shutdown.
///
/// A [`Slot`] is taken before a request's body is read and given back when the call's future is
/// gone, so the gate sees a job from its first byte on, and a canceled call as long as it still runs.
#[derive(Clone)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    /// The number of slots out, and [`CLOSED`]. One word, so that "not closed and not full" is tested
    /// and the slot taken in one step: no slot can slip out behind a drain that saw none.
    /// `AcqRel` on the way down, so that what a call did is visible to who sees its slot come back.
    state: AtomicUsize,
    limit: usize,
    /// How many slots each owner has out, where that is limited; owners with none are not in it.
    /// Guards are held for one count, while no other lock is.
    owners: DashMap<Owner, usize>,
    owner_limit: Option<usize>,
    emptied: Notify,
    /// Tells that no more slots are given.
    closing: CancellationToken,
    /// Ends the calls that a drain did not wait for.
    interrupts: Interrupts,
}

/// The bit of [`Shared::state`] that says no more slots are given.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// How long a drain waits for the calls that it has ended to be gone.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    OwnerFull,
    Draining,
}

impl Gate {
    /// A gate for `limit` slots, of which one owner may have `owner_limit`.
    pub(crate) fn new(limit: usize, owner_limit: Option<usize>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: AtomicUsize::new(0),
                limit: limit.min(CLOSED - 1),
                owners: DashMap::new(),
                owner_limit,
                emptied: Notify::new(),
                closing: CancellationToken::new(),
                interrupts: Interrupts::default(),
            }),
        }
    }

    pub(crate) fn enter(&self, owner: Option<Owner>) -> Result<Slot, Refused> {
        let limit = self.shared.limit;
        self.shared
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                (state < limit).then_some(state + 1)
            })
            .map_err(|state| match state & CLOSED {
                0 => Refused::Full,
                _ => Refused::Draining,
            })?;
        let mut slot = Slot {
            gate: self.clone(),
            _counted: Counted::unfinished(),
            owner: None,
        };
        if let (Some(limit), Some(owner)) = (self.shared.owner_limit, owner) {
            match self.shared.owners.entry(owner) {
                Entry::Occupied(mut slots) if *slots.get() < limit => *slots.get_mut() += 1,
                Entry::Vacant(none) if limit > 0 => {
                    none.insert(1);
                }
                _ => return Err(Refused::OwnerFull),
            }
            slot.owner = Some(Box::new(owner));
        }
        Ok(slot)
    }

    /// A slot whatever the limit, for what was admitted before it came here; `None` once closed.
    pub(crate) fn enter_beyond_limit(&self) -> Option<Slot> {
        let state = &self.shared.state;
        state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                (state & CLOSED == 0).then_some(state + 1)
            })
            .ok()?;
        Some(Slot {
            gate: self.clone(),
            _counted: Counted::unfinished(),
            owner: None,
        })
    }

    /// Completes when no more slots are given.
    pub(crate) async fn closed(&self) {
        self.shared.closing.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.state.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// The number of slots out.
    pub(crate) fn unfinished(&self) -> usize {
        self.shared.state.load(Ordering::Relaxed) & !CLOSED
    }

    /// Gives out no more slots, waits for those that are out, and after `timeout` ends the jobs among
    /// them. Returns how many slots were still out.
    ///
    /// Who ends is waited for, but not for long: what is not a job yet, a request that is being read or
    /// answered inline, is the server's to end.
    pub(crate) async fn drain(&self, timeout: Duration) -> usize {
        self.shared.state.fetch_or(CLOSED, Ordering::Relaxed);
        self.shared.closing.cancel();
        if tokio::time::timeout(timeout, self.emptied()).await.is_ok() {
            return 0;
        }
        let left = self.unfinished();
        self.shared.interrupts.shut_down();
        let _ = tokio::time::timeout(LAST_WAIT, self.emptied()).await;
        left
    }

    /// Where calls hear that they are to end.
    pub(crate) fn interrupts(&self) -> &Interrupts {
        &self.shared.interrupts
    }

    async fn emptied(&self) {
        // Registered before the count is read: the last slot either is seen gone or wakes this.
        let emptied = self.shared.emptied.notified();
        tokio::pin!(emptied);
        loop {
            emptied.as_mut().enable();
            if self.shared.state.load(Ordering::Acquire) & !CLOSED == 0 {
                return;
            }
            emptied.as_mut().await;
            emptied.set(self.shared.emptied.notified());
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("unfinished", &self.unfinished())
            .field("limit", &self.shared.limit)
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The right to one unfinished job; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Gate,
    /// Whose slot it is, where owners are counted.
    owner: Option<Box<Owner>>,
    _counted: Counted,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.gate.shared;
        if let Some(owner) = self.owner.as_deref() {
            if let Some(mut slots) = shared.owners.get_mut(owner) {
                *slots -= 1;
            }
            shared.owners.remove_if(owner, |_, slots| *slots == 0);
        }
        if shared.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            shared.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_to_the_limit_and_given_back() {
        let gate = Gate::new(2, None);
        let one = gate.enter(None).expect("free");
        let _two = gate.enter(None).expect("free");
        assert_eq!(gate.enter(None).expect_err("full"), Refused::Full);
        drop(one);
        assert!(gate.enter(None).is_ok());
    }

    #[test]
    fn an_owner_has_a_limit_of_its_own() {
        let gate = Gate::new(3, Some(1));
        let [me, you] = ["me", "you"].map(|name| Some(Owner::new(name)));
        let mine = gate.enter(me).expect("free");
        assert_eq!(gate.enter(me).expect_err("full"), Refused::OwnerFull);
        let _others = [gate.enter(you), gate.enter(None)];
        assert_eq!(gate.enter(you).expect_err("full"), Refused::Full);
        drop(mine);
        assert_eq!(gate.shared.owners.len(), 1, "who has none is not counted");
        assert!(gate.enter(me).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_every_slot() {
        let gate = Gate::new(2, None);
        let slot = gate.enter(None).expect("free");
        let drain = tokio::spawn({
            let gate = gate.clone();
            async move { gate.drain(Duration::from_secs(60)).await }
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!drain.is_finished());
        assert_eq!(gate.enter(None).expect_err("closed"), Refused::Draining);
        drop(slot);
        assert_eq!(drain.await.expect("no panic"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_what_outlasts_it_and_waits_for_that_too() {
        let gate = Gate::new(2, None);
        let slot = gate.enter(None).expect("free");
        let call = tokio::spawn({
            let gate = gate.clone();
            async move {
                gate.interrupts().shutdown().await;
                tokio::time::sleep(LAST_WAIT / 2).await;
                drop(slot);
            }
        });
        assert_eq!(gate.drain(Duration::from_secs(60)).await, 1);
        assert_eq!(gate.unfinished(), 0);
        call.await.expect("no panic");
    }
}
