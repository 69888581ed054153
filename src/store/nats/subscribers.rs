use dashmap::DashMap;
use tokio::sync::watch;

use crate::job::JobId;

/// Who in this process waits for which job to change.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// Guards are held for one look-up, insert or removal.
    jobs: DashMap<JobId, watch::Sender<()>>,
}

impl Subscribers {
    pub(super) fn follow(&self, id: JobId) -> watch::Receiver<()> {
        let sender = self.jobs.entry(id).or_insert_with(|| watch::channel(()).0);
        sender.subscribe()
    }

    /// Nobody waits through `receiver` any more.
    pub(super) fn leave(&self, id: JobId, receiver: watch::Receiver<()>) {
        drop(receiver);
        // Whoever follows next comes by the same entry, whose guard this holds.
        self.jobs
            .remove_if(&id, |_, sender| sender.receiver_count() == 0);
    }

    pub(super) fn tell(&self, id: JobId) {
        if let Some(sender) = self.jobs.get(&id) {
            sender.send_replace(());
        }
    }

    pub(super) fn tell_all(&self) {
        for sender in &self.jobs {
            sender.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_and_who_has_left_leaves_nothing() {
        let interest = Subscribers::default();
        let (id, other) = (JobId::random(), JobId::random());
        let (mut one, two) = (interest.follow(id), interest.follow(id));
        interest.tell(other);
        assert!(!one.has_changed().expect("there"));
        interest.tell(id);
        one.changed().await.expect("there");
        interest.leave(id, one);
        interest.tell_all();
        assert!(two.has_changed().expect("there"));
        interest.leave(id, two);
        assert!(interest.jobs.is_empty());
    }
}
