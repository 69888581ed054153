//! The state of one receiver: its requests in flight, its rate, its pauses and its suspension.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::ReceiverStanding;

/// The number of failures in a row after which a receiver is suspended.
pub(super) const MAX_FAILURES: u32 = 5;

/// The duration of a suspension. Then one attempt goes on trial.
pub(super) const SUSPENSION: Duration = Duration::from_secs(60);

/// The maximum pause of a receiver. Each delivery heeds its own `Retry-After` to the end, but one
/// URL of a host does not hold up the others for longer.
pub(super) const MAX_RECEIVER_PAUSE: Duration = Duration::from_secs(300);

/// The maximum duration of an attempt after which a receiver counts as proven.
pub(super) const MAX_PROVEN_DURATION: Duration = Duration::from_secs(2);

/// The time without a request after which a receiver is forgotten.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(600);

/// The effect of an attempt on its receiver's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptEffect {
    /// It has responded.
    Responded,
    /// It has responded, and asks for a pause.
    Pause(Duration),
    /// It has responded with an error of the server.
    ServerError,
    /// It has not responded.
    NoResponse,
}

/// The state of one receiver.
#[derive(Debug)]
pub(super) struct ReceiverState {
    pub(super) in_flight: usize,
    /// The failures since the last response without an error of the server.
    failures: u32,
    pub(super) standing: ReceiverStanding,
    suspended_until: Option<Instant>,
    /// Set during the attempt that shows whether a suspended receiver responds again.
    is_on_trial: bool,
    /// The time of its `Retry-After`.
    paused_until: Option<Instant>,
    /// The requests that the rate allows at `counted_at`, at most those of a second.
    allowed: f64,
    counted_at: Instant,
    pub(super) used_at: Instant,
}

impl ReceiverState {
    pub(super) fn new(now: Instant, rate: u32) -> Self {
        Self {
            in_flight: 0,
            failures: 0,
            standing: ReceiverStanding::Unknown,
            suspended_until: None,
            is_on_trial: false,
            paused_until: None,
            allowed: rate.into(),
            counted_at: now,
            used_at: now,
        }
    }

    /// Counts an attempt. Returns the end of a suspension as an error.
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.suspended_until {
            if now < until {
                return Err(until);
            }
            self.is_on_trial = true;
        }
        self.in_flight += 1;
        self.allowed -= 1.0;
        Ok(())
    }

    /// Ends an attempt. Without an effect, it was dropped.
    pub(super) fn end(&mut self, effect: Option<AttemptEffect>, duration: Duration, now: Instant) {
        // A receiver that holds its connections for long must leave room for others.
        let standing = if duration <= MAX_PROVEN_DURATION {
            ReceiverStanding::Proven
        } else {
            ReceiverStanding::Unknown
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        match effect {
            Some(AttemptEffect::Responded) => self.responded(standing),
            Some(AttemptEffect::Pause(pause)) => {
                self.responded(standing);
                self.paused_until = Some(now + pause.min(MAX_RECEIVER_PAUSE));
            }
            Some(AttemptEffect::ServerError) => self.failed(standing, now),
            Some(AttemptEffect::NoResponse) => self.failed(ReceiverStanding::Failing, now),
            None => {}
        }
        self.is_on_trial = false;
    }

    fn responded(&mut self, standing: ReceiverStanding) {
        self.failures = 0;
        self.standing = standing;
        self.suspended_until = None;
    }

    fn failed(&mut self, standing: ReceiverStanding, now: Instant) {
        self.standing = standing;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= MAX_FAILURES {
            self.suspended_until = Some(now + SUSPENSION);
        }
    }

    /// Returns the number of deliveries that may be taken beyond those in flight.
    ///
    /// Those for a suspended receiver are taken and put off. Then one goes on trial, and the others
    /// wait for its outcome.
    pub(super) fn max_more(&self, now: Instant) -> usize {
        match self.suspended_until {
            _ if self.is_on_trial => 0,
            Some(until) if now < until => usize::MAX,
            Some(_) => 1,
            None => self.allowed as usize,
        }
    }

    /// Adds the requests that the rate allows since the last count.
    fn count(&mut self, now: Instant, rate: u32) {
        let rate = f64::from(rate);
        let more = (now - self.counted_at).as_secs_f64() * rate;
        self.allowed = (self.allowed + more).min(rate);
        self.counted_at = now;
    }

    /// Returns the time of the next request, if none may be sent now.
    pub(super) fn next_at(&mut self, now: Instant, rate: u32) -> Option<Instant> {
        self.count(now, rate);
        self.paused_until = self.paused_until.filter(|&until| now < until);
        let missing = (1.0 - self.allowed).max(0.0) / f64::from(rate);
        let by_rate = (missing > 0.0).then(|| now + Duration::from_secs_f64(missing));
        self.paused_until.max(by_rate)
    }

    pub(super) fn can_be_forgotten(&self, now: Instant) -> bool {
        self.in_flight == 0 && now - self.used_at >= FORGET_AFTER
    }
}
