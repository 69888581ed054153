//! Waits for room in the budget.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    budget::{Budget, Charge, Purpose},
    room_queue::Turn,
};

/// The longest timeout. A clock may be unable to represent a longer one.
const MAX_TIMEOUT: Duration = Duration::from_secs(1 << 30);

/// Takes room for the response of one job, and waits for it if necessary.
///
/// The response that began first gets room first. If nothing is released for
/// [`Budget::room_timeout`], the response that asks for most is refused, but never the oldest of
/// several.
pub struct ResponseRoom {
    budget: Budget,
    /// The place in the order of all responses.
    ticket: u64,
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
            ticket: budget.pool.room.next_ticket(),
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
            let turn = queue.join(self.ticket, self.taken + bytes, cx.waker());
            let timer = self
                .timer
                .get_or_insert_with(|| RoomTimer::new(Instant::now(), timeout));
            let charge = match turn {
                Turn::First => reserve_ahead(bytes, self.taken, &reserve),
                Turn::Later | Turn::Refused => None,
            };
            if charge.is_some() || matches!(turn, Turn::Refused) {
                self.timer = None;
                queue.leave(self.ticket);
                return Poll::Ready(charge.map(|mut charge| {
                    self.taken += charge.bytes();
                    let taken = charge.split(bytes);
                    self.ahead = Some(charge);
                    taken
                }));
            }
            ready!(timer.sleep.as_mut().poll(cx));
            // This or another response may be refused, so look at the turn again.
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
            self.budget.pool.room.leave(self.ticket);
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
