//! Reads that are up to date whichever server has just become the leader.
//!
//! Who has just become the leader of a stream answers reads, and may not have applied yet all that its
//! predecessor has acknowledged. Where something is found that does no harm; but "there is none" may be
//! wrong. A removal goes through the replicas' log, also of a message that is not there: when it has
//! been answered, all that was acknowledged before it was asked for has been applied.
//!
//! That holds for who has answered it. Who was the leader before may not have heard of that yet, and answer
//! the read that follows: so [`lookup`](super::shared::Shared::lookup) asks once more, later.

use async_nats::jetstream::{
    ErrorCode,
    stream::{DeleteMessageErrorKind, Stream},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{NatsError, streams::Streams};

/// How many may wait for the same barrier before more are told to come back.
const WAITING: usize = 1_024;

/// No message has it.
const NO_SEQUENCE: u64 = 0;

type Answer = oneshot::Sender<Result<(), NatsError>>;

/// Raises barriers, one at a time for all who ask meanwhile: however many ids are guessed, the servers
/// have one removal at a time of it.
#[derive(Debug)]
pub(super) struct Barrier {
    asking: mpsc::Sender<Answer>,
    raising: JoinHandle<()>,
}

impl Barrier {
    pub(super) fn new(streams: &Streams) -> Self {
        let (asking, asked) = mpsc::channel(WAITING);
        let streams = [streams.queue.clone(), streams.jobs.clone()];
        Self {
            asking,
            raising: tokio::spawn(raise_for_all(asked, streams)),
        }
    }

    /// Returns when what was acknowledged before is seen by every read that comes.
    pub(super) async fn raise(&self) -> Result<(), NatsError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.asking.try_send(answer);
        asked.map_err(|_| NatsError::unavailable("too many jobs that are not there"))?;
        let raised = answered.await;
        raised.unwrap_or_else(|error| Err(NatsError::unavailable(error)))
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.raising.abort();
    }
}

async fn raise_for_all(mut asked: mpsc::Receiver<Answer>, streams: [Stream<()>; 2]) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, WAITING).await > 0 {
        let [queue, jobs] = &streams;
        let raised = tokio::try_join!(raise(queue), raise(jobs));
        let why = raised.err().map(|error| error.to_string());
        for answer in waiting.drain(..) {
            let raised = match &why {
                None => Ok(()),
                Some(why) => Err(NatsError::unavailable(why.clone())),
            };
            // Who has hung up needs no answer.
            let _ = answer.send(raised);
        }
    }
}

async fn raise(stream: &Stream<()>) -> Result<(), NatsError> {
    match stream.delete_message(NO_SEQUENCE).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            // There is none: that is the leader's answer.
            DeleteMessageErrorKind::JetStream(answer)
                if [
                    ErrorCode::NO_MESSAGE_FOUND,
                    ErrorCode::STREAM_MESSAGE_DELETE_FAILED,
                ]
                .contains(&answer.error_code()) =>
            {
                Ok(())
            }
            _ => Err(NatsError::unavailable(error)),
        },
    }
}
