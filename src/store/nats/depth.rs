//! An estimate of a stream's length, for the limits on queued requests and on keys.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the messages of a stream: its length when last polled, plus what this process has added.
///
/// The stream cannot enforce the limit. The replicas of a work queue do not hold the same messages
/// at a time, and neither do those of a stream whose messages expire. Up to nats-server 2.11, each
/// replica applies a limit by itself. Replicas that decide differently never agree again.
#[derive(Debug, Default)]
pub(super) struct StreamDepth {
    /// Both are plain counters that guard no other data, so every access is `Relaxed`. A message
    /// added during a poll may count twice until the next poll; it is never left out.
    polled: AtomicU64,
    added: AtomicU64,
}

impl StreamDepth {
    /// Counts one more message. Returns `false` if the stream has `limit` of them.
    pub(super) fn try_add(&self, limit: u64) -> bool {
        let polled = self.polled.load(Ordering::Relaxed);
        let free = limit.saturating_sub(polled);
        self.added
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |added| {
                (added < free).then_some(added + 1)
            })
            .is_ok()
    }

    /// Takes back a message that was counted and not added.
    pub(super) fn remove_one(&self) {
        let remove = |added: u64| added.checked_sub(1);
        // A poll may have taken it back already.
        let _ = self
            .added
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, remove);
    }

    /// Returns `true` if the count may be too high by now.
    pub(super) fn is_stale(&self) -> bool {
        self.added() > 0 || self.polled.load(Ordering::Relaxed) > 0
    }

    /// Returns the number of added messages, which a poll started after this call includes.
    pub(super) fn added(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }

    /// Records a poll. `added` is the value of [`added`](Self::added) from before the poll.
    pub(super) fn record_poll(&self, messages: u64, added: u64) {
        self.polled.store(messages, Ordering::Relaxed);
        // Some of them may have been taken back meanwhile.
        let remove = |now: u64| Some(now.saturating_sub(added));
        let _ = self
            .added
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, remove);
    }
}

#[cfg(test)]
mod tests {
    use super::StreamDepth;

    #[test]
    fn message_taken_back_during_a_poll_counts_once() {
        let depth = StreamDepth::default();
        assert!(depth.try_add(1));
        let added = depth.added();
        depth.remove_one();
        depth.record_poll(0, added);
        assert_eq!(depth.added(), 0);
        assert!(depth.try_add(1));
    }

    #[test]
    fn requests_beyond_the_limit_are_refused() {
        let depth = StreamDepth::default();
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
