//! The tasks of this process that wait for a job to change.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::watch;

use crate::JobId;

/// Notifies waiting tasks when the watch of the bucket reports a change.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// Map guards are held for a single look-up, insertion or removal, never across an await.
    jobs: DashMap<JobId, watch::Sender<()>>,
}

impl Subscribers {
    pub(super) fn subscribe(self: &Arc<Self>, id: JobId) -> Subscription {
        let sender = self.jobs.entry(id).or_insert_with(|| watch::channel(()).0);
        Subscription {
            subscribers: self.clone(),
            id,
            changed: Some(sender.subscribe()),
        }
    }

    pub(super) fn notify(&self, id: JobId) {
        if let Some(sender) = self.jobs.get(&id) {
            sender.send_replace(());
        }
    }

    pub(super) fn notify_all(&self) {
        for sender in &self.jobs {
            sender.send_replace(());
        }
    }
}

/// The notifications of one job, until it is dropped.
#[derive(Debug)]
pub(super) struct Subscription {
    subscribers: Arc<Subscribers>,
    id: JobId,
    /// `None` only while `drop` runs.
    changed: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// Forgets the notifications so far.
    pub(super) fn mark_unchanged(&mut self) {
        if let Some(changed) = &mut self.changed {
            changed.mark_unchanged();
        }
    }

    /// Waits for a notification since [`mark_unchanged`](Self::mark_unchanged).
    pub(super) async fn changed(&mut self) {
        if let Some(changed) = &mut self.changed {
            // The sender is removed after its last receiver.
            let _ = changed.changed().await;
        }
    }
}

impl Drop for Subscription {
    /// Drops the receiver, and the job's entry with the last one.
    fn drop(&mut self) {
        self.changed = None;
        // `subscribe` needs the guard that this closure runs under, so no new receiver is missed.
        self.subscribers
            .jobs
            .remove_if(&self.id, |_, sender| sender.receiver_count() == 0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_last_receiver_removes_its_entry() {
        let subscribers = Arc::new(Subscribers::default());
        let (id, other) = (JobId::random(), JobId::random());
        let (mut one, mut two) = (subscribers.subscribe(id), subscribers.subscribe(id));
        subscribers.notify(other);
        assert!(one.changed().now_or_never().is_none());
        subscribers.notify(id);
        one.changed().await;
        drop(one);
        subscribers.notify_all();
        assert!(two.changed().now_or_never().is_some());
        drop(two);
        assert!(subscribers.jobs.is_empty());
    }
}
