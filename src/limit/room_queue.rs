//! The order of responses that wait for room.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::Waker,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The responses that wait for room, the oldest first.
///
/// The oldest gets what is released until it has all that it asks for, so it ends, and its bytes
/// can be evicted for the next one. If nothing is released for a while, the response that asks for
/// most is refused, but never the oldest of several.
#[derive(Default)]
pub(super) struct RoomQueue {
    /// The number of responses that wait. `SeqCst`, like the counts of the budget: a waiter adds
    /// itself and then looks for room, and a release makes room and then looks for waiters. In
    /// the one order of all four steps, at least one of them sees the other.
    waiting: AtomicUsize,
    /// The next number of a response. `Relaxed`: it only has to be unique and to grow.
    next_ticket: AtomicU64,
    /// Held for a few look-ups, never across a wake-up or a reservation.
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    responses: BTreeMap<u64, WaitingResponse>,
    /// The time of the last release, refusal or first wait.
    last_change: Option<Instant>,
}

struct WaitingResponse {
    waker: Waker,
    /// The bytes that it has and asks for.
    total: usize,
    is_refused: bool,
}

impl RoomQueue {
    /// Returns the number of the next response.
    pub(super) fn next_ticket(&self) -> u64 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns `true` if a response waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Wakes the oldest response that waits.
    #[inline]
    pub(super) fn announce(&self) {
        if self.is_awaited() {
            self.wake_first();
        }
    }

    #[cold]
    fn wake_first(&self) {
        let first = {
            let mut state = self.state.lock();
            state.last_change = Some(Instant::now());
            let first = state.responses.values().next();
            first.map(|first| first.waker.clone())
        };
        if let Some(first) = first {
            first.wake();
        }
    }

    /// Adds a response, or updates it. Returns its turn.
    pub(super) fn join(&self, ticket: u64, total: usize, waker: &Waker) -> Turn {
        let mut state = self.state.lock();
        if state.responses.is_empty() {
            state.last_change = Some(Instant::now());
        }
        let response = state.responses.entry(ticket).or_insert(WaitingResponse {
            waker: waker.clone(),
            total,
            is_refused: false,
        });
        response.waker.clone_from(waker);
        response.total = total;
        let is_refused = response.is_refused;
        self.waiting.store(state.responses.len(), Ordering::SeqCst);
        if is_refused {
            Turn::Refused
        } else if state.responses.keys().next() == Some(&ticket) {
            Turn::First
        } else {
            Turn::Later
        }
    }

    pub(super) fn leave(&self, ticket: u64) {
        let mut state = self.state.lock();
        state.responses.remove(&ticket);
        self.waiting.store(state.responses.len(), Ordering::SeqCst);
        drop(state);
        self.announce();
    }

    /// Refuses the response that asks for most, if nothing has changed since `since`. Returns the
    /// time of the last change.
    pub(super) fn refuse_largest(&self, since: Instant) -> Instant {
        let (refused, last_change) = {
            let mut state = self.state.lock();
            let last_change = state.last_change.unwrap_or(since);
            if last_change > since {
                return last_change;
            }
            let now = Instant::now();
            state.last_change = Some(now);
            let spared = usize::from(state.responses.len() > 1);
            // Of two that ask for the same, the younger.
            let largest = state
                .responses
                .values_mut()
                .skip(spared)
                .filter(|response| !response.is_refused)
                .max_by_key(|response| response.total);
            let refused = largest.map(|largest| {
                largest.is_refused = true;
                largest.waker.clone()
            });
            (refused, now)
        };
        if let Some(refused) = refused {
            refused.wake();
        }
        last_change
    }
}

/// The turn of a response.
pub(super) enum Turn {
    First,
    Later,
    Refused,
}
