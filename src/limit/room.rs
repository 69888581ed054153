//! Waits for room in the budget.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{
    budget::{Budget, Charge, Purpose},
    room_queue::Turn,
};

/// The longest timeout. A clock may be unable to represent a longer one.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(1 << 30);

/// The minimum number of bytes that are taken in advance.
const MIN_AHEAD_BYTES: usize = 16 * 1024;

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
    /// Set once room was short. From then on, bytes are taken ahead.
    has_waited: bool,
    /// Present while this waits.
    timer: Option<RoomTimer>,
}

/// Runs until nothing has been released for the timeout since `since`.
struct RoomTimer {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Budget {
    /// Takes `bytes` for a replay. Waits for room for at most
    /// [`room_timeout`](Self::room_timeout), then returns `None`.
    pub async fn reserve_replay(&self, bytes: usize) -> Option<Charge> {
        let reserved = async {
            loop {
                // Created before the attempt, so that no release is lost after it.
                let released = self.replay_released();
                if let Some(charge) = self.reserve(bytes, Purpose::Replay) {
                    return charge;
                }
                released.await;
            }
        };
        timeout(self.room_timeout(), reserved).await.ok()
    }
}

impl ResponseRoom {
    /// Begins a response.
    pub fn new(budget: &Budget) -> Self {
        Self {
            ticket: budget.pool.room.next_ticket(),
            budget: budget.clone(),
            taken: 0,
            ahead: None,
            has_waited: false,
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
        let ahead = self.ahead.as_ref().map_or(0, Charge::bytes);
        if let Some(ahead) = self.ahead.as_mut().filter(|_| ahead >= bytes) {
            return Poll::Ready(Some(ahead.split(bytes)));
        }
        let Some(mut charge) = ready!(self.poll_missing(bytes - ahead, cx, reserve)) else {
            return Poll::Ready(None);
        };
        if let Some(ahead) = self.ahead.take() {
            charge.merge(ahead);
        }
        if self.has_waited {
            self.take_ahead();
        }
        Poll::Ready(Some(charge))
    }

    /// Waits for bytes that were not taken ahead.
    fn poll_missing(
        &mut self,
        bytes: usize,
        cx: &mut Context<'_>,
        reserve: impl Fn(usize) -> Option<Charge>,
    ) -> Poll<Option<Charge>> {
        let queue = &self.budget.pool.room;
        if self.timer.is_none()
            && !queue.is_awaited()
            && let Some(charge) = reserve(bytes)
        {
            self.taken += bytes;
            return Poll::Ready(Some(charge));
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
        if self.taken.saturating_add(bytes) > self.budget.share(Purpose::Response) {
            // It would wait in vain, and others would be refused for it.
            return Poll::Ready(None);
        }
        loop {
            let turn = queue.join(self.ticket, self.taken + bytes, cx.waker());
            let timer = self
                .timer
                .get_or_insert_with(|| RoomTimer::new(Instant::now(), timeout));
            let charge = match turn {
                Turn::First => reserve(bytes),
                Turn::Later | Turn::Refused => None,
            };
            if charge.is_some() || matches!(turn, Turn::Refused) {
                self.timer = None;
                self.has_waited = true;
                queue.leave(self.ticket);
                self.taken += charge.as_ref().map_or(0, Charge::bytes);
                return Poll::Ready(charge);
            }
            ready!(timer.sleep.as_mut().poll(cx));
            // This or another response may be refused, so look at the turn again.
            let since = queue.refuse_largest(timer.since);
            *timer = RoomTimer::new(since, timeout);
        }
    }

    /// Takes up to as many bytes as were taken before in advance. Evicts nothing for them.
    fn take_ahead(&mut self) {
        let mut wanted = self.taken;
        while wanted >= MIN_AHEAD_BYTES {
            self.ahead = self.budget.reserve(wanted, Purpose::Response);
            if self.ahead.is_some() {
                self.taken += wanted;
                return;
            }
            wanted /= 2;
        }
    }
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
