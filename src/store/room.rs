//! The connections that are free for deliveries.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

/// The connections that are free for deliveries, as a store leases them.
///
/// Each receiver has a share of its own. Receivers that do not respond cannot hold all connections:
/// half of them are for [proven](ReceiverStanding::Proven) receivers alone, and a quarter for those
/// and [unknown](ReceiverStanding::Unknown) ones.
#[derive(Debug, Clone)]
pub struct SendRoom {
    /// The free connections for proven receivers.
    free: usize,
    /// The free connections for all others.
    free_unproven: usize,
    /// The free connections for failing receivers.
    free_failing: usize,
    /// The free connections of a receiver that is not in `receivers`.
    each: usize,
    /// The receivers with a room of their own: those that were set or used.
    receivers: HashMap<Arc<str>, FreeRoom>,
    /// Knows the others. Of very many, a store asks for few.
    others: Option<Arc<dyn KnownReceivers>>,
    lease: Duration,
}

/// Knows receivers beside those that were set in a [`SendRoom`].
pub(crate) trait KnownReceivers: fmt::Debug + Send + Sync {
    /// Returns the room of a receiver if it differs from that of an unknown one.
    fn room_of(&self, receiver: &str) -> Option<FreeRoom>;
}

/// The outcome of the last request to a receiver. It decides how much of [`SendRoom`] the receiver
/// may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiverStanding {
    /// It responded to its last request soon.
    Proven,
    /// No request to it has ended yet, or the last one took long.
    Unknown,
    /// It did not respond to its last request.
    Failing,
}

/// The connections of one receiver, for [`SendRoom::set_receiver`].
#[derive(Debug, Clone, Copy)]
pub struct ReceiverRoom {
    /// The connections that are in use.
    pub used: usize,
    /// The maximum number of connections, including those in use.
    pub share: usize,
    /// The outcome of the last request to the receiver.
    pub standing: ReceiverStanding,
}

/// The room of one receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreeRoom {
    /// The free connections of its share.
    pub(crate) free: usize,
    pub(crate) standing: ReceiverStanding,
}

impl SendRoom {
    /// Creates room for `connections`, at most `each` to one receiver. A lease lasts for `lease`.
    pub fn new(connections: usize, each: usize, lease: Duration) -> Self {
        Self {
            free: connections,
            free_unproven: connections.div_ceil(2),
            free_failing: connections.div_ceil(4),
            each,
            receivers: HashMap::new(),
            others: None,
            lease,
        }
    }

    /// Asks `others` about each receiver that is not set. Their connections are taken out with
    /// [`take_out`](Self::take_out).
    #[cfg(feature = "webhook")]
    pub(crate) fn with_others(mut self, others: Arc<dyn KnownReceivers>) -> Self {
        self.others = Some(others);
        self
    }

    /// Subtracts a receiver's connections in use, and sets its share and standing. Call it once for
    /// each receiver.
    ///
    /// Any other receiver is unknown, and has its whole share.
    pub fn set_receiver(&mut self, receiver: impl Into<Arc<str>>, room: ReceiverRoom) {
        let ReceiverRoom {
            used,
            share,
            standing,
        } = room;
        self.take_out(used, standing);
        let free = share.saturating_sub(used);
        let room = FreeRoom { free, standing };
        self.receivers.insert(receiver.into(), room);
    }

    /// Returns the time after which another process may take a leased delivery.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns `true` if no delivery can be sent.
    pub fn is_full(&self) -> bool {
        self.free == 0
    }

    /// Returns the number of deliveries that can be sent to a receiver.
    pub fn free(&self, receiver: &str) -> usize {
        let room = self.room_of(receiver);
        room.free.min(self.free_for(room.standing))
    }

    /// Returns the number of free connections for all receivers of this standing.
    pub(crate) fn free_for(&self, standing: ReceiverStanding) -> usize {
        match standing {
            ReceiverStanding::Proven => self.free,
            ReceiverStanding::Unknown => self.free.min(self.free_unproven),
            ReceiverStanding::Failing => self.free.min(self.free_unproven).min(self.free_failing),
        }
    }

    /// Returns the standing of a receiver that lacks connections only because others of its
    /// standing hold them.
    pub(crate) fn lacking(&self, receiver: &str) -> Option<ReceiverStanding> {
        let FreeRoom { free, standing } = self.room_of(receiver);
        (free > 0 && self.free_for(standing) == 0).then_some(standing)
    }

    fn room_of(&self, receiver: &str) -> FreeRoom {
        let added = self.receivers.get(receiver).copied();
        let known = || self.others.as_ref()?.room_of(receiver);
        added.or_else(known).unwrap_or(FreeRoom {
            free: self.each,
            standing: ReceiverStanding::Unknown,
        })
    }

    /// Takes a connection to a receiver. Returns `false` if none is free.
    pub fn take(&mut self, receiver: &str) -> bool {
        let mut room = self.room_of(receiver);
        if room.free.min(self.free_for(room.standing)) == 0 {
            return false;
        }
        room.free -= 1;
        self.take_out(1, room.standing);
        match self.receivers.get_mut(receiver) {
            Some(added) => *added = room,
            None => {
                self.receivers.insert(receiver.into(), room);
            }
        }
        true
    }

    /// Takes out connections that are in use.
    pub(crate) fn take_out(&mut self, used: usize, standing: ReceiverStanding) {
        self.free = self.free.saturating_sub(used);
        if standing != ReceiverStanding::Proven {
            self.free_unproven = self.free_unproven.saturating_sub(used);
        }
        if standing == ReceiverStanding::Failing {
            self.free_failing = self.free_failing.saturating_sub(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(used: usize, share: usize, standing: ReceiverStanding) -> ReceiverRoom {
        ReceiverRoom {
            used,
            share,
            standing,
        }
    }

    #[test]
    fn unproven_receivers_leave_half_of_the_room() {
        let mut room = SendRoom::new(8, 2, Duration::from_secs(60));
        room.set_receiver("proven", known(1, 3, ReceiverStanding::Proven));
        let silent: Vec<_> = (0..10).map(|number| format!("silent {number}")).collect();
        let taken = silent.iter().filter(|silent| room.take(silent)).count();
        assert_eq!(taken, 4);
        assert_eq!(room.free("proven"), 2);
        assert!(room.take("proven") && room.take("proven") && !room.take("proven"));
        assert!(!room.is_full());
    }

    #[test]
    fn failing_receivers_leave_a_quarter_to_unknown_ones() {
        let mut room = SendRoom::new(8, 2, Duration::from_secs(60));
        let failing: Vec<_> = (0..4).map(|number| format!("failing {number}")).collect();
        for failing in &failing {
            room.set_receiver(failing.as_str(), known(0, 2, ReceiverStanding::Failing));
        }
        let taken = failing.iter().filter(|failing| room.take(failing)).count();
        assert_eq!(taken, 2);
        assert!(room.take("unknown") && room.take("unknown") && !room.take("another"));
    }

    #[test]
    fn receiver_has_its_share() {
        let mut room = SendRoom::new(8, 2, Duration::from_secs(60));
        assert!(room.take("one") && room.take("one") && !room.take("one"));
        room.set_receiver("paused", known(0, 0, ReceiverStanding::Unknown));
        assert!(!room.take("paused"));
        assert_eq!(room.free("another"), 2);
    }
}
