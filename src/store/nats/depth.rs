use std::sync::atomic::{AtomicU64, Ordering};

/// About how many requests are in the queue: as many as it had when it was asked last, and what this process
/// has put there since.
///
/// It is not the stream that counts. What is in a work queue at a time is not the same on all of its replicas,
/// and up to 2.11 each decides for itself whether another message is too much: from there on they differ.
#[derive(Debug, Default)]
pub(super) struct QueueDepth {
    /// Only counts, and nothing else is read on the strength of them: every access is `Relaxed`. What is
    /// added while the queue is asked may be in both, until it is asked again; in neither is nothing.
    told: AtomicU64,
    added: AtomicU64,
}

impl QueueDepth {
    /// Counts one more, unless so many are there.
    pub(super) fn add(&self, limit: u64) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        let free = limit.saturating_sub(told);
        self.added
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |added| {
                (added < free).then_some(added + 1)
            })
            .is_ok()
    }

    /// Whether there may be fewer by now.
    pub(super) fn is_stale(&self) -> bool {
        self.added.load(Ordering::Relaxed) > 0 || self.told.load(Ordering::Relaxed) > 0
    }

    /// How many were added by now: what the queue tells if it is asked from here on has them.
    pub(super) fn added(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }

    /// The queue has told how many there are, these `added` among them.
    pub(super) fn tell(&self, messages: u64, added: u64) {
        self.told.store(messages, Ordering::Relaxed);
        self.added.fetch_sub(added, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::QueueDepth;

    #[test]
    fn no_more_are_added_than_there_is_room_for() {
        let depth = QueueDepth::default();
        assert!(depth.add(2) && depth.add(2) && !depth.add(2));
        let added = depth.added();
        // One has left, and another process has put two there.
        depth.tell(3, added);
        assert!(!depth.add(3) && depth.is_stale());
        assert!(depth.add(4) && !depth.add(4));
        depth.tell(0, depth.added());
        assert!(!depth.is_stale() && depth.add(2));
    }
}
