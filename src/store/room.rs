//! The connections that are free for deliveries.

use std::{collections::HashMap, time::Duration};

/// The connections that are free for deliveries, as a store leases them.
///
/// Each receiver has a share of its own. Half of all connections are for receivers that took their
/// last delivery, so that those that do not respond cannot hold all.
#[derive(Debug, Clone)]
pub struct SendRoom {
    /// The free connections for receivers that took their last delivery.
    free: usize,
    /// The free connections for all others.
    free_unproven: usize,
    /// The free connections of a receiver that is not in `receivers`.
    each: usize,
    receivers: HashMap<String, ReceiverRoom>,
    lease: Duration,
}

#[derive(Debug, Clone, Copy)]
struct ReceiverRoom {
    free: usize,
    is_proven: bool,
}

impl SendRoom {
    /// Creates room for `connections`, at most `each` to one receiver. A lease lasts for `lease`.
    pub fn new(connections: usize, each: usize, lease: Duration) -> Self {
        Self {
            free: connections,
            free_unproven: connections.div_ceil(2),
            each,
            receivers: HashMap::new(),
            lease,
        }
    }

    /// Takes out the connections of a receiver that are in use, and sets its share.
    pub fn receiver(
        &mut self,
        receiver: impl Into<String>,
        used: usize,
        share: usize,
        is_proven: bool,
    ) {
        self.free = self.free.saturating_sub(used);
        if !is_proven {
            self.free_unproven = self.free_unproven.saturating_sub(used);
        }
        let free = share.saturating_sub(used);
        let room = ReceiverRoom { free, is_proven };
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
        let (free, is_proven) = match self.receivers.get(receiver) {
            Some(room) => (room.free, room.is_proven),
            None => (self.each, false),
        };
        let all = if is_proven {
            self.free
        } else {
            self.free.min(self.free_unproven)
        };
        free.min(all)
    }

    /// Takes a connection to a receiver. Returns `false` if none is free.
    pub fn take(&mut self, receiver: &str) -> bool {
        if self.free(receiver) == 0 {
            return false;
        }
        let new = ReceiverRoom {
            free: self.each,
            is_proven: false,
        };
        let room = self.receivers.entry(receiver.to_owned()).or_insert(new);
        room.free -= 1;
        self.free -= 1;
        if !room.is_proven {
            self.free_unproven -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unproven_receivers_leave_half_of_the_room() {
        let mut room = SendRoom::new(8, 2, Duration::from_secs(60));
        room.receiver("proven", 1, 3, true);
        let silent: Vec<_> = (0..10).map(|number| format!("silent {number}")).collect();
        let taken = silent.iter().filter(|silent| room.take(silent)).count();
        assert_eq!(taken, 4);
        assert_eq!(room.free("proven"), 2);
        assert!(room.take("proven") && room.take("proven") && !room.take("proven"));
        assert!(!room.is_full());
    }

    #[test]
    fn receiver_has_its_share() {
        let mut room = SendRoom::new(8, 2, Duration::from_secs(60));
        assert!(room.take("one") && room.take("one") && !room.take("one"));
        room.receiver("paused", 0, 0, false);
        assert!(!room.take("paused"));
        assert_eq!(room.free("another"), 2);
    }
}
