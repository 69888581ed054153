//! An estimate of the queue's length, for the limit on queued requests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the requests in the queue: its length when last polled, plus what this process has added.
///
/// The stream cannot enforce the limit. A work queue does not hold the same messages on all of its
/// replicas at a time, and up to nats-server 2.11 each replica applies a limit by itself. Replicas
/// that decide differently never agree again.
#[derive(Debug, Default)]
pub(super) struct QueueDepth {
    /// Both are plain counters that guard no other data, so every access is `Relaxed`. A request
    /// added during a poll may count twice until the next poll; it is never left out.
    polled: AtomicU64,
    added: AtomicU64,
}

impl QueueDepth {
    /// Counts one more request. Returns `false` if the queue is full.
    pub(super) fn try_add(&self, limit: u64) -> bool {
        let polled = self.polled.load(Ordering::Relaxed);
        let free = limit.saturating_sub(polled);
        self.added
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |added| {
                (added < free).then_some(added + 1)
            })
            .is_ok()
    }

    /// Returns `true` if the count may be too high by now.
    pub(super) fn is_stale(&self) -> bool {
        self.added() > 0 || self.polled.load(Ordering::Relaxed) > 0
    }

    /// Returns the number of added requests, which a poll started after this call includes.
    pub(super) fn added(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }

    /// Records a poll. `added` is the value of [`added`](Self::added) from before the poll.
    pub(super) fn record_poll(&self, messages: u64, added: u64) {
        self.polled.store(messages, Ordering::Relaxed);
        self.added.fetch_sub(added, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::QueueDepth;

    #[test]
    fn requests_beyond_the_limit_are_refused() {
        let depth = QueueDepth::default();
        assert!(depth.try_add(2) && depth.try_add(2) && !depth.try_add(2));
        let added = depth.added();
        // One request has left the queue, and another process has added two.
        depth.record_poll(3, added);
        assert!(!depth.try_add(3) && depth.is_stale());
        assert!(depth.try_add(4) && !depth.try_add(4));
        depth.record_poll(0, depth.added());
        assert!(!depth.is_stale() && depth.try_add(2));
    }
}
