//! The state that clones of a store and their claims share, and their way to the writer's thread.

use std::{
    convert::identity,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};

use super::{
    backlog::Owed,
    error::SqliteError,
    output::FlushedOutput,
    readers::Readers,
    shared::Shared,
    step::Step,
    task::{Message, StepTask},
    tickets::Tickets,
};
use crate::store::Budget;

/// The time that a client waits for a write before it gets 503.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// The maximum number of steps of clients that wait for the writer's thread. While another process
/// is stopped in its turn, requests would otherwise pile up in memory.
const MAX_CLIENT_STEPS: usize = 16_384;

/// The delay before a failed write is retried. It doubles with each failure.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The longest such delay.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The state that the clones of a store and their claims share.
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) readers: Readers,
    pub(super) budget: Budget,
    pub(super) tickets: Tickets,
    /// One for each further step of a client in the queue.
    client_steps: Arc<Semaphore>,
    sender: mpsc::Sender<Message>,
}

impl Process {
    pub(super) fn new(shared: Arc<Shared>, budget: Budget, sender: mpsc::Sender<Message>) -> Self {
        Self {
            readers: Readers::new(&shared.path),
            shared,
            budget,
            tickets: Tickets::default(),
            client_steps: Arc::new(Semaphore::new(MAX_CLIENT_STEPS)),
            sender,
        }
    }

    /// Commits a step for a client, which gets an error after a few seconds.
    ///
    /// `then` runs once the step is committed, even if this future is dropped. Its value is then
    /// dropped too. A step that has not begun when this is dropped is left out.
    ///
    /// # Errors
    ///
    /// Fails at once if too many steps wait.
    pub(super) async fn commit<O, T>(
        &self,
        work: impl FnMut(&mut Step<'_>) -> Result<O, SqliteError> + Send + 'static,
        then: impl FnOnce(O) -> T + Send + 'static,
    ) -> Result<T, SqliteError>
    where
        O: Send + 'static,
        T: Send + 'static,
    {
        let permit = self.client_steps.clone().try_acquire_owned();
        let permit = permit.map_err(|_| SqliteError::Busy)?;
        let committed = self.submit(work, move |output| {
            // Held by the step until it leaves the queue, even if this future is dropped.
            drop(permit);
            then(output)
        });
        let committed = timeout(CLIENT_PATIENCE, committed).await;
        committed.unwrap_or(Err(SqliteError::Busy))
    }

    /// Commits a step, and retries until it succeeds.
    ///
    /// # Errors
    ///
    /// Fails only if the store is closed.
    pub(super) async fn commit_with_retries<O, W>(
        &self,
        what: &'static str,
        mut work: impl FnMut() -> W,
    ) -> Result<O, SqliteError>
    where
        O: Send + 'static,
        W: FnMut(&mut Step<'_>) -> Result<O, SqliteError> + Send + 'static,
    {
        let mut delay = FIRST_RETRY_DELAY;
        loop {
            let error = match self.submit(work(), identity).await {
                Err(SqliteError::Closed) => return Err(SqliteError::Closed),
                Err(error) => error,
                Ok(output) => return Ok(output),
            };
            tracing::warn!(%error, what, "failed to write to the file of jobs, retrying");
            sleep(delay).await;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    async fn submit<O, T>(
        &self,
        work: impl FnMut(&mut Step<'_>) -> Result<O, SqliteError> + Send + 'static,
        then: impl FnOnce(O) -> T + Send + 'static,
    ) -> Result<T, SqliteError>
    where
        O: Send + 'static,
        T: Send + 'static,
    {
        let (reply, committed) = oneshot::channel();
        let task = StepTask::new(work, then, reply);
        self.send(Message::Task(Box::new(task)));
        committed.await.unwrap_or(Err(SqliteError::Closed))
    }

    /// Leaves work to the writer's thread, which does it even if transactions fail meanwhile.
    pub(super) fn owe(&self, owed: Owed) {
        if self.shared.backlog.add(owed) {
            self.send(Message::Owed);
        }
    }

    /// Makes what was flushed of a response readable soon.
    pub(super) fn publish(&self, output: &Arc<FlushedOutput>) {
        if self.shared.outputs.add(output) {
            self.send(Message::Outputs);
        }
    }

    fn send(&self, message: Message) {
        // The thread ends only after the last sender, or if it panics. Then replies are dropped.
        let _ = self.sender.send(message);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use tempfile::TempDir;

    use super::*;
    use crate::store::sqlite::{open::open, options::SqliteOptions};

    #[tokio::test]
    async fn full_queue_refuses_clients() {
        let directory = TempDir::new().expect("a directory");
        let options = SqliteOptions::new();
        let file = open(&directory.path().join("jobs.db"), &options).expect("the file opens");
        let shared = Arc::new(Shared::new(&file, options));
        let (sender, receiver) = mpsc::channel();
        let process = Process::new(shared, Budget::new(1 << 20), sender);
        for _ in 0..MAX_CLIENT_STEPS {
            // A client that leaves does not take its step out of the queue.
            let waiting = process.commit(|_| Ok(()), identity).now_or_never();
            assert!(waiting.is_none());
        }
        let refused = process.commit(|_| Ok(()), identity).now_or_never();
        assert!(matches!(refused, Some(Err(SqliteError::Busy))));
        // The end of a call always finds room.
        let mut ending = pin!(process.commit_with_retries("it", || |_: &mut Step<'_>| Ok(())));
        assert!(ending.as_mut().now_or_never().is_none());
        assert_eq!(receiver.try_iter().count(), MAX_CLIENT_STEPS + 1);
        let waiting = process.commit(|_| Ok(()), identity).now_or_never();
        assert!(waiting.is_none());
    }
}
