//! The state of each receiver in this process: its share, its rate, and whether it responds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::receiver_state::{AttemptEffect, ReceiverState};
use crate::store::{FreeRoom, KnownReceivers, SendRoom};

/// The number of receivers beyond which idle ones are forgotten.
const MAX_IDLE_RECEIVERS: usize = 1_000;

/// The number of receivers beyond which all without a request in flight are forgotten.
const MAX_RECEIVERS: usize = 20_000;

/// The limits of each receiver, and of all together.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiverLimits {
    pub(super) connections: usize,
    pub(super) each: usize,
    /// The number of requests to one receiver in a second.
    pub(super) rate: u32,
    /// The duration of a lease.
    pub(super) lease: Duration,
}

/// The state of each receiver in this process.
#[derive(Debug)]
pub(super) struct Receivers {
    limits: ReceiverLimits,
    /// Held for one operation, never across an await.
    states: Mutex<HashMap<Arc<str>, ReceiverState>>,
    /// Notified when a connection is free again.
    freed: Notify,
}

/// The permission to send a delivery, or the time until the next attempt.
#[derive(Debug)]
pub(super) enum SendPermission {
    Send(AttemptPermit),
    /// The receiver has failed several times in a row. It is tried again after this time.
    Suspended(Duration),
}

/// A connection to a receiver that is in use until this is dropped.
#[derive(Debug)]
#[must_use = "dropping a permit ends the attempt"]
pub(super) struct AttemptPermit {
    receivers: Arc<Receivers>,
    receiver: Arc<str>,
    began_at: Instant,
    /// Absent if the attempt is dropped.
    effect: Option<AttemptEffect>,
}

impl Receivers {
    pub(super) fn new(limits: ReceiverLimits) -> Self {
        Self {
            limits,
            states: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Completes when a connection has become free since the last call completed.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Returns the free connections, and the time at which a receiver that has none because of its
    /// rate or a pause has one again.
    ///
    /// A store asks for few receivers. So the room of each is computed when it does.
    pub(super) fn room(self: &Arc<Self>) -> (SendRoom, Option<Instant>) {
        let now = Instant::now();
        let mut states = self.states.lock();
        if states.len() > MAX_RECEIVERS {
            states.retain(|_, state| state.in_flight > 0);
        } else if states.len() > MAX_IDLE_RECEIVERS {
            states.retain(|_, state| !state.can_be_forgotten(now));
        }
        let mut free_at: Option<Instant> = None;
        let mut room = self.empty_room();
        for state in states.values_mut() {
            room.take_out(state.in_flight, state.standing);
            let next = state.next_at(now, self.limits.rate);
            free_at = free_at.into_iter().chain(next).min();
        }
        (room.with_others(self.clone()), free_at)
    }

    /// Begins an attempt for which [`room`](Self::room) had a connection.
    pub(super) fn begin(self: &Arc<Self>, receiver: &str) -> SendPermission {
        let now = Instant::now();
        let mut states = self.states.lock();
        let begun = self.state(&mut states, receiver, now).begin(now);
        match begun {
            Ok(()) => SendPermission::Send(self.permit(receiver)),
            Err(until) => SendPermission::Suspended(until - now),
        }
    }

    /// Begins an attempt if the receiver has room and is not suspended. After a suspension, one
    /// attempt goes on trial.
    pub(super) fn try_begin(self: &Arc<Self>, receiver: &str) -> Option<AttemptPermit> {
        let now = Instant::now();
        let mut states = self.states.lock();
        self.state(&mut states, receiver, now);
        let mut room = self.empty_room();
        for state in states.values() {
            room.take_out(state.in_flight, state.standing);
        }
        let state = self.state(&mut states, receiver, now);
        let own = self.room_of_state(state, now);
        let has_room = own.free.min(room.free_for(own.standing)) > 0;
        let is_begun = has_room && state.begin(now).is_ok();
        is_begun.then(|| self.permit(receiver))
    }

    fn permit(self: &Arc<Self>, receiver: &str) -> AttemptPermit {
        AttemptPermit {
            receivers: self.clone(),
            receiver: receiver.into(),
            began_at: Instant::now(),
            effect: None,
        }
    }

    fn empty_room(&self) -> SendRoom {
        SendRoom::new(self.limits.connections, self.limits.each, self.limits.lease)
    }

    /// Returns the state of a receiver, which is used now.
    fn state<'a>(
        &self,
        states: &'a mut HashMap<Arc<str>, ReceiverState>,
        receiver: &str,
        now: Instant,
    ) -> &'a mut ReceiverState {
        if !states.contains_key(receiver) {
            states.insert(receiver.into(), ReceiverState::new(now, self.limits.rate));
        }
        let state = states.get_mut(receiver).expect("it was inserted");
        state.used_at = now;
        state
    }

    fn room_of_state(&self, state: &mut ReceiverState, now: Instant) -> FreeRoom {
        let ReceiverLimits { each, rate, .. } = self.limits;
        let more = if state.next_at(now, rate).is_some() {
            0
        } else {
            state.max_more(now)
        };
        FreeRoom {
            free: each.saturating_sub(state.in_flight).min(more),
            standing: state.standing,
        }
    }
}

impl KnownReceivers for Receivers {
    fn room_of(&self, receiver: &str) -> Option<FreeRoom> {
        let now = Instant::now();
        let mut states = self.states.lock();
        let state = states.get_mut(receiver)?;
        Some(self.room_of_state(state, now))
    }
}

impl AttemptPermit {
    /// Ends the attempt.
    pub(super) fn end(mut self, effect: AttemptEffect) {
        self.effect = Some(effect);
    }
}

impl Drop for AttemptPermit {
    fn drop(&mut self) {
        if let Some(state) = self.receivers.states.lock().get_mut(&self.receiver) {
            let now = Instant::now();
            state.end(self.effect, now - self.began_at, now);
        }
        self.receivers.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::notify::receiver_state::{
        FORGET_AFTER, MAX_FAILURES, MAX_PROVEN_DURATION, MAX_RECEIVER_PAUSE, SUSPENSION,
    };

    fn receivers(rate: u32) -> Arc<Receivers> {
        Arc::new(Receivers::new(ReceiverLimits {
            connections: 16,
            each: 4,
            rate,
            lease: Duration::from_secs(60),
        }))
    }

    fn free(receivers: &Arc<Receivers>) -> usize {
        receivers.room().0.free("it")
    }

    fn begin(receivers: &Arc<Receivers>) -> AttemptPermit {
        match receivers.begin("it") {
            SendPermission::Send(permit) => permit,
            SendPermission::Suspended(_) => panic!("suspended"),
        }
    }

    fn suspend(receivers: &Arc<Receivers>) {
        for _ in 0..MAX_FAILURES {
            begin(receivers).end(AttemptEffect::NoResponse);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_has_a_share_of_connections() {
        let receivers = receivers(100);
        let mut permits = Vec::new();
        for left in [3, 2, 1, 0] {
            permits.push(begin(&receivers));
            assert_eq!(free(&receivers), left);
        }
        assert!(receivers.try_begin("it").is_none());
        assert_eq!(receivers.room().0.free("another"), 4);
        permits.pop();
        assert_eq!(free(&receivers), 1);
        assert!(receivers.try_begin("it").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_has_a_rate() {
        let receivers = receivers(2);
        for _ in 0..2 {
            let permit = receivers.try_begin("it").expect("room");
            permit.end(AttemptEffect::Responded);
        }
        assert!(receivers.try_begin("it").is_none());
        let (_, free_at) = receivers.room();
        assert_eq!(free_at, Some(Instant::now() + Duration::from_millis(500)));
        advance(Duration::from_millis(500)).await;
        assert!(receivers.try_begin("it").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_that_fails_is_suspended() {
        let receivers = receivers(100);
        suspend(&receivers);
        assert!(matches!(
            receivers.begin("it"),
            SendPermission::Suspended(SUSPENSION)
        ));
        assert!(receivers.try_begin("it").is_none());
        // They are taken, and put off.
        assert_eq!(free(&receivers), 4);
        advance(SUSPENSION).await;
        begin(&receivers).end(AttemptEffect::NoResponse);
        assert!(matches!(
            receivers.begin("it"),
            SendPermission::Suspended(_)
        ));
        advance(SUSPENSION).await;
        begin(&receivers).end(AttemptEffect::Responded);
        assert_eq!(free(&receivers), 4);
        assert!(receivers.try_begin("it").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn live_event_goes_on_trial() {
        let receivers = receivers(100);
        suspend(&receivers);
        assert!(receivers.try_begin("it").is_none());
        advance(SUSPENSION).await;
        let trial = receivers.try_begin("it").expect("the suspension is over");
        assert!(receivers.try_begin("it").is_none());
        trial.end(AttemptEffect::Responded);
        assert!(receivers.try_begin("it").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_receivers_leave_half_of_the_room() {
        let receivers = receivers(100);
        let slow: Vec<_> = (0..4).map(|number| format!("slow {number}")).collect();
        for slow in &slow {
            let permit = receivers.try_begin(slow).expect("room");
            advance(MAX_PROVEN_DURATION + Duration::from_secs(1)).await;
            permit.end(AttemptEffect::Responded);
        }
        begin(&receivers).end(AttemptEffect::Responded);
        let all = slow.iter().flat_map(|slow| [slow; 4]);
        let permits: Vec<_> = all.filter_map(|slow| receivers.try_begin(slow)).collect();
        assert_eq!(permits.len(), 8);
        assert_eq!(free(&receivers), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_wait_for_a_trial() {
        let receivers = receivers(100);
        suspend(&receivers);
        advance(SUSPENSION).await;
        assert_eq!(free(&receivers), 1);
        let trial = begin(&receivers);
        assert_eq!(free(&receivers), 0);
        // A dropped attempt has no outcome, so another one goes on trial.
        drop(trial);
        assert_eq!(free(&receivers), 1);
        begin(&receivers).end(AttemptEffect::Responded);
        assert_eq!(free(&receivers), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn receiver_gets_the_pause_it_asks_for() {
        let receivers = receivers(100);
        for (asked, pause) in [(10, 10), (24 * 3600, MAX_RECEIVER_PAUSE.as_secs())] {
            let asked = Duration::from_secs(asked);
            begin(&receivers).end(AttemptEffect::Pause(asked));
            assert_eq!(free(&receivers), 0);
            assert!(receivers.try_begin("it").is_none());
            let (_, free_at) = receivers.room();
            let pause = Duration::from_secs(pause);
            assert_eq!(free_at, Some(Instant::now() + pause));
            advance(pause).await;
            assert_eq!(free(&receivers), 4);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failing_receivers_leave_room_for_new_ones() {
        let receivers = receivers(100);
        let silent: Vec<_> = (0..8).map(|number| format!("silent {number}")).collect();
        for silent in &silent {
            let permit = receivers.try_begin(silent).expect("room");
            permit.end(AttemptEffect::NoResponse);
        }
        let permits = silent
            .iter()
            .filter_map(|silent| receivers.try_begin(silent));
        let permits: Vec<_> = permits.collect();
        // A quarter of all connections.
        assert_eq!(permits.len(), 4);
        assert_eq!(free(&receivers), 4);
        let unknown: Vec<_> = (0..4).map(|_| begin(&receivers)).collect();
        assert_eq!(receivers.room().0.free("another"), 0);
        // An error is a response too, and takes no more than its time.
        for permit in unknown {
            permit.end(AttemptEffect::ServerError);
        }
        let proven: Vec<_> = (0..4).map(|_| begin(&receivers)).collect();
        assert_eq!(receivers.room().0.free("another"), 4);
        drop((permits, proven));
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_receivers_is_limited() {
        let receivers = receivers(100);
        let _used = begin(&receivers);
        for number in 0..MAX_RECEIVERS {
            let SendPermission::Send(permit) = receivers.begin(&number.to_string()) else {
                panic!("suspended");
            };
            permit.end(AttemptEffect::Responded);
        }
        let _ = receivers.room();
        assert_eq!(receivers.states.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn free_connection_is_announced() {
        let receivers = receivers(100);
        drop(begin(&receivers));
        receivers.freed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn idle_receivers_are_forgotten() {
        let receivers = receivers(100);
        for number in 0..=MAX_IDLE_RECEIVERS {
            let permit = receivers.try_begin(&number.to_string());
            permit.expect("room").end(AttemptEffect::Responded);
        }
        advance(FORGET_AFTER).await;
        let _used = begin(&receivers);
        let _ = receivers.room();
        assert_eq!(receivers.states.lock().len(), 1);
    }
}
