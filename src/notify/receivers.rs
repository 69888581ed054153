//! What this process knows of receivers: their share, their rate, and whether they respond.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::SendRoom;

/// The number of failures in a row after which a receiver is suspended.
const MAX_FAILURES: u32 = 5;

/// The time for which a receiver is suspended. Then one attempt tells whether it responds again.
const SUSPENSION: Duration = Duration::from_secs(60);

/// The time without a request after which a receiver is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// The number of receivers from which on idle ones are forgotten.
const MANY_RECEIVERS: usize = 1_000;

/// The limits of each receiver, and of all together.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiverLimits {
    pub(super) connections: usize,
    pub(super) each: usize,
    /// The number of requests to one receiver in a second.
    pub(super) rate: u32,
    /// The time for which a delivery is leased.
    pub(super) lease: Duration,
}

/// What this process knows of receivers.
#[derive(Debug)]
pub(super) struct Receivers {
    limits: ReceiverLimits,
    /// Held for one operation, never across an await.
    states: Mutex<HashMap<String, ReceiverState>>,
}

#[derive(Debug)]
struct ReceiverState {
    in_flight: usize,
    /// The failures since the last response.
    failures: u32,
    is_proven: bool,
    suspended_until: Option<Instant>,
    /// The time of its `Retry-After`.
    paused_until: Option<Instant>,
    /// The requests that the rate allows at `counted_at`, at most those of a second.
    allowed: f64,
    counted_at: Instant,
    used_at: Instant,
}

/// Whether a delivery may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendPermission {
    Send,
    /// The receiver has failed several times in a row.
    Suspended,
}

/// What an attempt tells of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptEffect {
    /// It has responded.
    Responded,
    /// It asks for a pause.
    Pause(Duration),
    /// It has not responded, or with an error of the server.
    Failed,
    /// Nothing was sent.
    Nothing,
}

impl Receivers {
    pub(super) fn new(limits: ReceiverLimits) -> Self {
        Self {
            limits,
            states: Mutex::default(),
        }
    }

    /// Returns the free connections, and the time at which a receiver that has none because of its
    /// rate or a pause has one again.
    pub(super) fn room(&self) -> (SendRoom, Option<Instant>) {
        let (limits, now) = (self.limits, Instant::now());
        let mut room = SendRoom::new(limits.connections, limits.each, limits.lease);
        let mut free_at: Option<Instant> = None;
        let mut states = self.states.lock();
        if states.len() > MANY_RECEIVERS {
            states.retain(|_, state| state.in_flight > 0 || now - state.used_at < FORGET_AFTER);
        }
        for (receiver, state) in &mut *states {
            state.count(now, limits.rate);
            let next = state.next_at(now, limits.rate);
            free_at = free_at.into_iter().chain(next).min();
            let allowed = if next.is_some() {
                0
            } else {
                state.allowed as usize
            };
            let share = limits.each.min(state.in_flight + allowed);
            room.receiver(receiver.as_str(), state.in_flight, share, state.is_proven);
        }
        (room, free_at)
    }

    /// Counts an attempt, until [`end`](Self::end) is called.
    pub(super) fn begin(&self, receiver: &str) -> SendPermission {
        let now = Instant::now();
        let mut states = self.states.lock();
        let state = states
            .entry(receiver.to_owned())
            .or_insert_with(|| ReceiverState::new(now, self.limits.rate));
        state.in_flight += 1;
        state.used_at = now;
        state.count(now, self.limits.rate);
        match state.suspended_until {
            Some(until) if now < until => SendPermission::Suspended,
            suspended => {
                // One attempt goes on trial, and the others wait for its outcome.
                state.suspended_until = suspended.map(|_| now + SUSPENSION);
                state.allowed -= 1.0;
                SendPermission::Send
            }
        }
    }

    /// Counts an attempt like [`begin`](Self::begin) if the receiver has room and is not suspended.
    pub(super) fn try_begin(&self, receiver: &str) -> bool {
        let (room, _) = self.room();
        let is_suspended = {
            let states = self.states.lock();
            states
                .get(receiver)
                .is_some_and(|state| state.suspended_until.is_some())
        };
        // Another attempt may begin in between. The limits are exceeded by a few then.
        room.free(receiver) > 0 && !is_suspended && self.begin(receiver) == SendPermission::Send
    }

    /// Ends an attempt.
    pub(super) fn end(&self, receiver: &str, effect: AttemptEffect) {
        let now = Instant::now();
        let mut states = self.states.lock();
        let Some(state) = states.get_mut(receiver) else {
            return;
        };
        state.in_flight = state.in_flight.saturating_sub(1);
        match effect {
            AttemptEffect::Responded => state.responded(),
            AttemptEffect::Pause(pause) => {
                state.responded();
                state.paused_until = Some(now + pause);
            }
            AttemptEffect::Failed => {
                state.failures = state.failures.saturating_add(1);
                state.is_proven = false;
                if state.failures >= MAX_FAILURES {
                    state.suspended_until = Some(now + SUSPENSION);
                }
            }
            AttemptEffect::Nothing => {}
        }
    }
}

impl ReceiverState {
    fn new(now: Instant, rate: u32) -> Self {
        Self {
            in_flight: 0,
            failures: 0,
            is_proven: false,
            suspended_until: None,
            paused_until: None,
            allowed: rate.into(),
            counted_at: now,
            used_at: now,
        }
    }

    fn responded(&mut self) {
        self.failures = 0;
        self.is_proven = true;
        self.suspended_until = None;
    }

    /// Adds the requests that the rate allows since the last count.
    fn count(&mut self, now: Instant, rate: u32) {
        let rate = f64::from(rate);
        let more = (now - self.counted_at).as_secs_f64() * rate;
        self.allowed = (self.allowed + more).min(rate);
        self.counted_at = now;
    }

    /// Returns the time of the next request, if none may be sent now.
    fn next_at(&mut self, now: Instant, rate: u32) -> Option<Instant> {
        self.paused_until = self.paused_until.filter(|&until| now < until);
        let missing = (1.0 - self.allowed).max(0.0) / f64::from(rate);
        let by_rate = (missing > 0.0).then(|| now + Duration::from_secs_f64(missing));
        self.paused_until.max(by_rate)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn receivers(rate: u32) -> Receivers {
        Receivers::new(ReceiverLimits {
            connections: 16,
            each: 4,
            rate,
            lease: Duration::from_secs(60),
        })
    }

    fn free(receivers: &Receivers) -> usize {
        receivers.room().0.free("it")
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_has_a_share_of_connections() {
        let receivers = receivers(100);
        for left in [3, 2, 1, 0] {
            assert_eq!(receivers.begin("it"), SendPermission::Send);
            assert_eq!(free(&receivers), left);
        }
        assert_eq!(receivers.room().0.free("another"), 4);
        receivers.end("it", AttemptEffect::Responded);
        assert_eq!(free(&receivers), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_has_a_rate() {
        let receivers = receivers(2);
        for _ in 0..2 {
            assert!(receivers.try_begin("it"));
            receivers.end("it", AttemptEffect::Responded);
        }
        assert!(!receivers.try_begin("it"));
        let (_, free_at) = receivers.room();
        assert_eq!(free_at, Some(Instant::now() + Duration::from_millis(500)));
        advance(Duration::from_millis(500)).await;
        assert!(receivers.try_begin("it"));
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_that_fails_is_suspended() {
        let receivers = receivers(100);
        for _ in 0..MAX_FAILURES {
            assert_eq!(receivers.begin("it"), SendPermission::Send);
            receivers.end("it", AttemptEffect::Failed);
        }
        assert_eq!(receivers.begin("it"), SendPermission::Suspended);
        receivers.end("it", AttemptEffect::Nothing);
        advance(SUSPENSION).await;
        // One on trial.
        assert_eq!(receivers.begin("it"), SendPermission::Send);
        assert_eq!(receivers.begin("it"), SendPermission::Suspended);
        receivers.end("it", AttemptEffect::Nothing);
        receivers.end("it", AttemptEffect::Failed);
        assert_eq!(receivers.begin("it"), SendPermission::Suspended);
        receivers.end("it", AttemptEffect::Nothing);
        advance(SUSPENSION).await;
        assert_eq!(receivers.begin("it"), SendPermission::Send);
        receivers.end("it", AttemptEffect::Responded);
        assert_eq!(receivers.begin("it"), SendPermission::Send);
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_gets_the_pause_it_asks_for() {
        let receivers = receivers(100);
        receivers.begin("it");
        receivers.end("it", AttemptEffect::Pause(Duration::from_secs(10)));
        assert_eq!(free(&receivers), 0);
        let (_, free_at) = receivers.room();
        assert_eq!(free_at, Some(Instant::now() + Duration::from_secs(10)));
        advance(Duration::from_secs(10)).await;
        assert_eq!(free(&receivers), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_receivers_are_forgotten() {
        let receivers = receivers(100);
        for number in 0..=MANY_RECEIVERS {
            let receiver = number.to_string();
            receivers.begin(&receiver);
            receivers.end(&receiver, AttemptEffect::Responded);
        }
        advance(FORGET_AFTER * 2).await;
        receivers.begin("it");
        let _ = receivers.room();
        assert_eq!(receivers.states.lock().len(), 1);
    }
}
