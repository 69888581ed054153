//! The tasks of this process that wait for a job to change.

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
    pub(super) fn subscribe(&self, id: JobId) -> watch::Receiver<()> {
        let sender = self.jobs.entry(id).or_insert_with(|| watch::channel(()).0);
        sender.subscribe()
    }

    /// Drops a receiver, and the job's entry with the last one.
    pub(super) fn unsubscribe(&self, id: JobId, receiver: watch::Receiver<()>) {
        drop(receiver);
        // `subscribe` needs the guard that this closure runs under, so no new receiver is missed.
        self.jobs
            .remove_if(&id, |_, sender| sender.receiver_count() == 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_receiver_removes_its_entry() {
        let subscribers = Subscribers::default();
        let (id, other) = (JobId::random(), JobId::random());
        let (mut one, two) = (subscribers.subscribe(id), subscribers.subscribe(id));
        subscribers.notify(other);
        assert!(!one.has_changed().expect("a sender"));
        subscribers.notify(id);
        one.changed().await.expect("a sender");
        subscribers.unsubscribe(id, one);
        subscribers.notify_all();
        assert!(two.has_changed().expect("a sender"));
        subscribers.unsubscribe(id, two);
        assert!(subscribers.jobs.is_empty());
    }
}
