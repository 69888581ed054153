//! The messages to the writer's thread.

use tokio::sync::oneshot;

use super::{error::SqliteError, step::Step};

/// A message to the writer's thread.
pub(super) enum Message {
    /// A step of a transaction.
    Task(Box<dyn Task>),
    /// There is work in the [`Backlog`](super::backlog::Backlog).
    Owed,
    /// Responses were flushed, see [`OutputQueue`](super::output::OutputQueue).
    Outputs,
}

/// Work that runs as one step of a transaction, and the reply to the future that waits for it.
pub(super) trait Task: Send {
    /// Returns `false` if the future that waited for the outcome has been dropped.
    fn is_wanted(&self) -> bool;

    /// Does the step. It is done again if its transaction fails because of another step.
    fn run(&mut self, step: &mut Step<'_>) -> Result<(), SqliteError>;

    /// Passes on the outcome of the transaction.
    fn conclude(self: Box<Self>, committed: Result<(), SqliteError>);
}

/// A closure as a task.
pub(super) struct StepTask<W, O, F, T> {
    work: W,
    output: Option<O>,
    then: F,
    reply: oneshot::Sender<Result<T, SqliteError>>,
}

impl<W, O, F, T> StepTask<W, O, F, T> {
    pub(super) fn new(work: W, then: F, reply: oneshot::Sender<Result<T, SqliteError>>) -> Self {
        Self {
            work,
            output: None,
            then,
            reply,
        }
    }
}

impl<W, O, F, T> Task for StepTask<W, O, F, T>
where
    W: FnMut(&mut Step<'_>) -> Result<O, SqliteError> + Send,
    O: Send,
    F: FnOnce(O) -> T + Send,
    T: Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, step: &mut Step<'_>) -> Result<(), SqliteError> {
        self.output = Some((self.work)(step)?);
        Ok(())
    }

    fn conclude(self: Box<Self>, committed: Result<(), SqliteError>) {
        let outcome = match (committed, self.output) {
            (Ok(()), Some(output)) => Ok((self.then)(output)),
            (Ok(()), None) => Err(SqliteError::Closed),
            (Err(error), _) => Err(error),
        };
        // If the receiver has been dropped, this drops a claim in the outcome, which hands it back.
        drop(self.reply.send(outcome));
    }
}
