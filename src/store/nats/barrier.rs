//! Makes reads current right after a leader election.

use std::{ops::Range, time::Duration};

use async_nats::jetstream::stream::Stream;
use futures_util::future::try_join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{error::NatsError, messages};

/// The maximum number of callers that wait for the next barrier; further calls fail.
const MAX_WAITING: usize = 1_024;

/// The maximum time that a replaced leader keeps answering reads.
///
/// A new leader announces itself at once and then every second.
const ELECTION_NOTICE: Duration = Duration::from_secs(1);

/// No message has this sequence.
const NO_SEQUENCE: u64 = 0;

type BarrierReply = oneshot::Sender<Result<(), NatsError>>;

/// Makes reads of some streams current.
///
/// The leader of a stream answers reads. A leader elected a moment ago may not have applied every
/// write that its predecessor acknowledged, so its "no message found" can be wrong. A delete goes
/// through the replicas' log, even of a message that does not exist. Once a server has answered a
/// delete, it has applied every write acknowledged before.
///
/// The previous leader may not know of the election yet, and may answer the read that follows. So
/// delete and read are repeated after [`ELECTION_NOTICE`].
///
/// Concurrent callers share each delete, so clients that guess ids cause one at a time per stream.
#[derive(Debug)]
pub(super) struct Barrier {
    streams: Vec<Stream<()>>,
    /// The configured number of replicas.
    replicas: usize,
    requests: mpsc::Sender<BarrierReply>,
    task: JoinHandle<()>,
}

impl Barrier {
    pub(super) fn new(streams: &[&Stream<()>], replicas: usize) -> Self {
        let streams: Vec<_> = streams.iter().copied().cloned().collect();
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        Self {
            replicas,
            requests,
            task: tokio::spawn(run_barriers(receiver, streams.clone())),
            streams,
        }
    }

    /// Calls `read` until it finds something. Returns `None` only if that is certain.
    ///
    /// # Errors
    ///
    /// [`NatsError::Unavailable`] if nothing is found while a replica is missing or behind.
    pub(super) async fn read<T, Fut>(&self, read: impl Fn() -> Fut) -> Result<Option<T>, NatsError>
    where
        Fut: Future<Output = Result<Option<T>, NatsError>>,
    {
        if let Some(found) = self.read_from_majority(read).await? {
            return Ok(Some(found));
        }
        if self.is_complete().await? {
            Ok(None)
        } else {
            Err(NatsError::unavailable("a replica is missing or behind"))
        }
    }

    /// Calls `read` until it finds something, and trusts a majority of the replicas for `None`.
    pub(super) async fn read_from_majority<T, Fut>(
        &self,
        read: impl Fn() -> Fut,
    ) -> Result<Option<T>, NatsError>
    where
        Fut: Future<Output = Result<Option<T>, NatsError>>,
    {
        if let Some(found) = read().await? {
            return Ok(Some(found));
        }
        for round in self.rounds() {
            self.run_round(round).await?;
            if let Some(found) = read().await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Waits until reads return every write that was acknowledged before this call.
    pub(super) async fn pass(&self) -> Result<(), NatsError> {
        for round in self.rounds() {
            self.run_round(round).await?;
        }
        Ok(())
    }

    /// One round, and a second one if there are other replicas that may have been the leader.
    fn rounds(&self) -> Range<usize> {
        0..self.replicas.min(2)
    }

    async fn run_round(&self, round: usize) -> Result<(), NatsError> {
        if round > 0 {
            sleep(ELECTION_NOTICE).await;
        }
        let (reply, receiver) = oneshot::channel();
        let sent = self.requests.try_send(reply);
        sent.map_err(|_| NatsError::unavailable("too many reads wait for the replicas"))?;
        let done = receiver.await;
        done.unwrap_or_else(|error| Err(NatsError::unavailable(error)))
    }

    /// Returns `true` if every replica is online and current.
    async fn is_complete(&self) -> Result<bool, NatsError> {
        for stream in &self.streams {
            let info = stream.get_info().await.map_err(NatsError::unavailable)?;
            // All replicas except the leader.
            let followers = info.cluster.map(|cluster| cluster.replicas);
            let followers = followers.unwrap_or_default();
            let has_all = followers.len() + 1 >= self.replicas;
            if !has_all || !followers.iter().all(|peer| peer.current && !peer.offline) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run_barriers(mut receiver: mpsc::Receiver<BarrierReply>, streams: Vec<Stream<()>>) {
    let mut waiting = Vec::new();
    while receiver.recv_many(&mut waiting, MAX_WAITING).await > 0 {
        let deletes = streams
            .iter()
            .map(|stream| messages::delete(stream, NO_SEQUENCE));
        let done = try_join_all(deletes).await;
        let failure = done.err().map(|error| error.to_string());
        for reply in waiting.drain(..) {
            let result = match &failure {
                None => Ok(()),
                Some(failure) => Err(NatsError::unavailable(failure.clone())),
            };
            // The caller may have been dropped.
            let _ = reply.send(result);
        }
    }
}
