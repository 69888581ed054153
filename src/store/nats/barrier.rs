//! Reads that are up to date whichever server has just become the leader.
//!
//! Who has just become the leader of a stream answers reads, and may not have applied yet all that its
//! predecessor has acknowledged. Where something is found that does no harm as a rule; but "there is none" may be
//! wrong. A removal goes through the replicas' log, also of a message that is not there: when it has
//! been answered, all that was acknowledged before it was asked for has been applied.
//!
//! That holds for who has answered it. Who was the leader before may not have heard of that yet, and answer
//! the read that follows: so a [`Barrier`] reads once more, later.

use std::{ops::Range, time::Duration};

use async_nats::jetstream::stream::Stream;
use futures_util::future::try_join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{NatsError, messages};

/// How many may wait for the same barrier before more are told to come back.
const WAITING: usize = 1_024;

/// How long a leader that has been replaced may go on answering reads: until it hears of the other, which tells
/// of itself at once and then each second.
const NEWS_OF_A_LEADER: Duration = Duration::from_secs(1);

/// No message has it.
const NO_SEQUENCE: u64 = 0;

type Answer = oneshot::Sender<Result<(), NatsError>>;

/// Raises barriers in some streams, one at a time for all who ask meanwhile: however many ids are guessed,
/// the servers have one removal at a time of it.
#[derive(Debug)]
pub(super) struct Barrier {
    streams: Vec<Stream<()>>,
    /// How many servers are to have each stream.
    replicas: usize,
    asking: mpsc::Sender<Answer>,
    raising: JoinHandle<()>,
}

impl Barrier {
    pub(super) fn new(streams: &[&Stream<()>], replicas: usize) -> Self {
        let streams: Vec<_> = streams.iter().copied().cloned().collect();
        let (asking, asked) = mpsc::channel(WAITING);
        Self {
            replicas,
            asking,
            raising: tokio::spawn(raise_for_all(asked, streams.clone())),
            streams,
        }
    }

    /// Reads what may not be there, until it is or until it is certain that it is not.
    pub(super) async fn read<T, Fut>(&self, read: impl Fn() -> Fut) -> Result<Option<T>, NatsError>
    where
        Fut: Future<Output = Result<Option<T>, NatsError>>,
    {
        if let Some(there) = self.find(read).await? {
            return Ok(Some(there));
        }
        match self.are_whole().await? {
            true => Ok(None),
            false => Err(NatsError::unavailable("not all replicas are there to ask")),
        }
    }

    /// The same as far as the replicas tell that are there: a majority.
    pub(super) async fn find<T, Fut>(&self, read: impl Fn() -> Fut) -> Result<Option<T>, NatsError>
    where
        Fut: Future<Output = Result<Option<T>, NatsError>>,
    {
        if let Some(there) = read().await? {
            return Ok(Some(there));
        }
        for round in self.rounds() {
            self.round(round).await?;
            if let Some(there) = read().await? {
                return Ok(Some(there));
            }
        }
        Ok(None)
    }

    /// Returns when a read that comes is up to date with what was acknowledged before, also where something older is
    /// there.
    pub(super) async fn pass(&self) -> Result<(), NatsError> {
        for round in self.rounds() {
            self.round(round).await?;
        }
        Ok(())
    }

    /// How often it takes one: once more for a leader that has been replaced, where there may be another.
    fn rounds(&self) -> Range<usize> {
        0..self.replicas.min(2)
    }

    async fn round(&self, round: usize) -> Result<(), NatsError> {
        if round > 0 {
            sleep(NEWS_OF_A_LEADER).await;
        }
        self.raise().await
    }

    /// Returns when what was acknowledged before is seen by every read that the same leader answers.
    async fn raise(&self) -> Result<(), NatsError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.asking.try_send(answer);
        asked.map_err(|_| NatsError::unavailable("too much that is not there"))?;
        let raised = answered.await;
        raised.unwrap_or_else(|error| Err(NatsError::unavailable(error)))
    }

    /// Whether every replica is there, and up to date.
    async fn are_whole(&self) -> Result<bool, NatsError> {
        for stream in &self.streams {
            let info = stream.get_info().await.map_err(NatsError::unavailable)?;
            // Those besides its leader.
            let followers = info.cluster.map(|cluster| cluster.replicas);
            let followers = followers.unwrap_or_default();
            let is_whole = followers.len() + 1 >= self.replicas;
            if !is_whole || !followers.iter().all(|peer| peer.current && !peer.offline) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.raising.abort();
    }
}

async fn raise_for_all(mut asked: mpsc::Receiver<Answer>, streams: Vec<Stream<()>>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, WAITING).await > 0 {
        let raising = streams
            .iter()
            .map(|stream| messages::delete(stream, NO_SEQUENCE));
        let raised = try_join_all(raising).await;
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
