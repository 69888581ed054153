//! Responses that wait for room in the budget.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use super::budget::{Budget, Charge, Purpose};

/// The longest timeout. A clock may be unable to represent a longer one.
const MAX_TIMEOUT: Duration = Duration::from_secs(1 << 30);

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
    next_turn: AtomicU64,
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

    /// Adds a response, or updates it. Returns whether it is the oldest.
    fn join(&self, turn: u64, total: usize, waker: &Waker) -> Turn {
        let mut state = self.state.lock();
        if state.responses.is_empty() {
            state.last_change = Some(Instant::now());
        }
        let response = state.responses.entry(turn).or_insert(WaitingResponse {
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
        } else if state.responses.keys().next() == Some(&turn) {
            Turn::First
        } else {
            Turn::Later
        }
    }

    fn leave(&self, turn: u64) {
        let mut state = self.state.lock();
        state.responses.remove(&turn);
        self.waiting.store(state.responses.len(), Ordering::SeqCst);
        drop(state);
        self.announce();
    }

    /// Refuses the response that asks for most, if nothing has changed since `since`. Returns the
    /// time of the last change.
    fn refuse_largest(&self, since: Instant) -> Instant {
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

enum Turn {
    First,
    Later,
    Refused,
}

/// Takes room for the response of one job, and waits for it if necessary.
///
/// The response that began first gets room first. If nothing is released for
/// [`Budget::room_timeout`], the response that asks for most is refused.
pub struct ResponseRoom {
    budget: Budget,
    /// The place in the order of all responses.
    turn: u64,
    /// The bytes taken so far.
    taken: usize,
    /// Bytes that were taken ahead, so that responses do not take turns at each frame.
    ahead: Option<Charge>,
    /// Present while this waits.
    timer: Option<RoomTimer>,
}

/// Runs until nothing has been released for the timeout since `since`.
struct RoomTimer {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl ResponseRoom {
    /// Begins a response.
    pub fn new(budget: &Budget) -> Self {
        Self {
            turn: budget.pool.room.next_turn.fetch_add(1, Ordering::Relaxed),
            budget: budget.clone(),
            taken: 0,
            ahead: None,
            timer: None,
        }
    }

    /// Returns the budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Waits until `reserve`, which may evict kept jobs, takes `bytes`. Completes with `None` if
    /// there is no room.
    ///
    /// Wakes the task that polled last.
    pub fn poll_reserve(
        &mut self,
        bytes: usize,
        cx: &mut Context<'_>,
        reserve: impl Fn(usize) -> Option<Charge>,
    ) -> Poll<Option<Charge>> {
        if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.bytes() >= bytes) {
            return Poll::Ready(Some(ahead.split(bytes)));
        }
        let queue = &self.budget.pool.room;
        if self.timer.is_none() && !queue.is_awaited() {
            if let Some(charge) = reserve(bytes) {
                self.taken += bytes;
                return Poll::Ready(Some(charge));
            }
            if bytes > self.budget.share(Purpose::Response) {
                return Poll::Ready(None);
            }
        }
        self.poll_turn(bytes, cx, reserve)
    }

    #[cold]
    fn poll_turn(
        &mut self,
        bytes: usize,
        cx: &mut Context<'_>,
        reserve: impl Fn(usize) -> Option<Charge>,
    ) -> Poll<Option<Charge>> {
        let queue = &self.budget.pool.room;
        let timeout = self.budget.room_timeout();
        loop {
            let turn = queue.join(self.turn, self.taken + bytes, cx.waker());
            let timer = self
                .timer
                .get_or_insert_with(|| RoomTimer::new(Instant::now(), timeout));
            let charge = match turn {
                Turn::First => reserve_ahead(bytes, self.taken, &reserve),
                Turn::Later | Turn::Refused => None,
            };
            if charge.is_some() || matches!(turn, Turn::Refused) {
                self.timer = None;
                queue.leave(self.turn);
                return Poll::Ready(charge.map(|mut charge| {
                    self.taken += charge.bytes();
                    let taken = charge.split(bytes);
                    self.ahead = Some(charge);
                    taken
                }));
            }
            ready!(timer.sleep.as_mut().poll(cx));
            // Whether this or another response is refused, this looks at its turn again.
            let since = queue.refuse_largest(timer.since);
            *timer = RoomTimer::new(since, timeout);
        }
    }
}

/// Takes `bytes`, and up to as many as were taken before in advance.
fn reserve_ahead(
    bytes: usize,
    taken: usize,
    reserve: impl Fn(usize) -> Option<Charge>,
) -> Option<Charge> {
    let mut wanted = bytes.max(taken);
    while wanted > bytes {
        if let Some(charge) = reserve(wanted) {
            return Some(charge);
        }
        wanted /= 2;
    }
    reserve(bytes)
}

impl RoomTimer {
    fn new(since: Instant, timeout: Duration) -> Self {
        let end = since + timeout.min(MAX_TIMEOUT);
        Self {
            since,
            sleep: Box::pin(sleep_until(end)),
        }
    }
}

impl Drop for ResponseRoom {
    fn drop(&mut self) {
        if self.timer.take().is_some() {
            self.budget.pool.room.leave(self.turn);
        }
    }
}

impl fmt::Debug for ResponseRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseRoom")
            .field("taken", &self.taken)
            .field("is_waiting", &self.timer.is_some())
            .finish_non_exhaustive()
    }
}
