//! What waits in the queue: looked through, and kept from being forgotten.

use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::{
    NatsError,
    clock::{now, whole_millis},
    envelope::{open, seal},
    jetstream::JetStream,
    messages::{self, WriteError},
    names::SubjectNames,
    record::JobRecord,
    request::QueuedRequest,
};
use crate::job::JobId;

/// How many requests are read at a time.
const AT_ONCE: usize = 32;

/// A request in the queue.
#[derive(Debug)]
pub(super) struct QueueEntry {
    pub(super) asked: QueuedRequest,
    pub(super) sequence: u64,
}

/// Whose turn it is to look through the queue.
#[derive(Debug, Serialize, Deserialize)]
struct JanitorLease {
    /// When the last one began, in milliseconds since the epoch of Unix.
    at: u64,
    /// Since when no record of a claim has expired while its request was in the queue.
    since: u64,
}

impl JetStream {
    /// What the queue has of a job.
    pub(super) async fn waiting(&self, id: JobId) -> Result<Option<QueueEntry>, NatsError> {
        let subject = self.names.queued(id);
        match messages::last(&self.streams.queue, &subject).await? {
            Some(entry) => {
                let (asked, _) = open(&subject, entry.payload)?;
                let sequence = entry.sequence;
                Ok(Some(QueueEntry { asked, sequence }))
            }
            None => Ok(None),
        }
    }

    /// Takes a request out of the queue, as far as it is known to be there.
    pub(super) async fn take_out(&self, id: JobId) -> Result<(), NatsError> {
        let waiting = self.waiting(id).await?;
        match waiting {
            Some(waiting) => messages::delete(&self.streams.queue, waiting.sequence).await,
            None => Ok(()),
        }
    }

    /// All requests in the queue, those that run included, in no order.
    pub(super) async fn all_waiting(
        &self,
    ) -> Result<impl Stream<Item = Result<(JobId, QueueEntry), NatsError>>, NatsError> {
        let subjects = self.names.all_queued();
        let subjects = self.streams.queue.info_with_subjects(subjects).await;
        let subjects = subjects.map_err(NatsError::unavailable)?;
        let reading = subjects.map(async |subject| {
            let (subject, _) = subject.map_err(NatsError::unavailable)?;
            let Some(id) = SubjectNames::id(&subject) else {
                return Ok(None);
            };
            let waiting = self.waiting(id).await?;
            Ok(waiting.map(|waiting| (id, waiting)))
        });
        Ok(reading
            .buffer_unordered(AT_ONCE)
            .try_filter_map(async |waiting| Ok(waiting)))
    }

    /// Lets what is known of requests in the queue live as long as they are there: their keys, their places in
    /// lists, and claims of processes that are gone. And takes out requests whose job has ended, which would be
    /// begun when that is forgotten. Of all processes one does this, each quarter of the retention.
    pub(super) async fn tend_waiting(&self) -> Result<(), NatsError> {
        let info = self.streams.queue.get_info().await;
        let info = info.map_err(NatsError::unavailable)?;
        if info.state.messages == 0 {
            return Ok(());
        }
        let Some(turn) = self.takes_turn().await? else {
            return Ok(());
        };
        let oldest = now().saturating_sub(whole_millis(self.quarter()) / 2);
        let tended = self
            .all_waiting()
            .await?
            .map(|waiting| async {
                let (id, waiting) = waiting?;
                match waiting.asked.created_at < oldest {
                    true => self.tend(id, &waiting).await,
                    false => Ok(()),
                }
            })
            .buffer_unordered(AT_ONCE)
            .fold(true, async |all, tended| match tended {
                Ok(()) => all,
                // Not this version's to look after; the others are.
                Err(error @ NatsError::Unreadable { .. }) => {
                    tracing::warn!(%error, "left alone");
                    all
                }
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "a request that waits is not looked after"
                    );
                    false
                }
            })
            .await;
        match tended {
            true => Ok(()),
            // Of what was left out, the record may expire.
            false => self.ends_turn_early(turn).await,
        }
    }

    async fn tend(
        &self,
        id: JobId,
        QueueEntry { asked, sequence }: &QueueEntry,
    ) -> Result<(), NatsError> {
        // What has none of its run has no end either: most are asked for once.
        let run = messages::last(&self.streams.jobs, &self.names.run(id)).await?;
        if let Some(run) = run {
            // With it the last claim, which has no other record to be renewed in.
            let Some(mut known) = self.known(id).await? else {
                return Ok(());
            };
            if known.record.is_ended() {
                self.tidy(id, &known.record).await?;
                return messages::delete(&self.streams.queue, *sequence).await;
            }
            // Whoever is alive does that itself, and sooner.
            if now().saturating_sub(run.written) > whole_millis(self.quarter()).saturating_mul(2) {
                let claim = known.record.holder.map(|holder| holder.claim);
                let (at, patience) = (known.sequence, self.patience());
                let put = self.put(&known.subject, &mut known.record, b"", at, claim, patience);
                put.await?;
            }
        }
        self.renew(id, &JobRecord::queued(asked)).await
    }

    /// Since when no claim of a request in the queue has been forgotten: of one that was made since and of
    /// which there is no record, there has been none.
    pub(super) async fn claims_known_since(&self) -> Result<u64, NatsError> {
        let subject = self.names.turn();
        match messages::last(&self.streams.jobs, &subject).await? {
            Some(entry) => Ok(open::<JanitorLease>(&subject, entry.payload)?.0.since),
            None => Ok(self.claims_kept_since()),
        }
    }

    /// The same as far as records are kept without anybody's doing, and some time less.
    fn claims_kept_since(&self) -> u64 {
        now().saturating_sub(whole_millis(self.quarter()).saturating_mul(3))
    }

    pub(super) fn quarter(&self) -> Duration {
        self.options.retain / 4
    }

    /// Where it is written that it is this process's turn, if it is.
    async fn takes_turn(&self) -> Result<Option<u64>, NatsError> {
        let subject = self.names.turn();
        let mut since = self.claims_kept_since();
        let expected = match messages::last(&self.streams.jobs, &subject).await? {
            None => 0,
            Some(entry) => {
                let sequence = entry.sequence;
                let (turn, _) = open::<JanitorLease>(&subject, entry.payload)?;
                let quarter = whole_millis(self.quarter());
                // A little early is as good, and late is not.
                if turn.at.saturating_add(quarter / 4 * 3) > now() {
                    return Ok(None);
                }
                // What was too young to be renewed then has not expired yet.
                if turn.at.saturating_add(quarter.saturating_mul(2)) > now() {
                    since = turn.since;
                }
                sequence
            }
        };
        self.write_turn(since, expected).await
    }

    /// Takes back what a turn has said of those before it.
    async fn ends_turn_early(&self, turn: u64) -> Result<(), NatsError> {
        let since = self.claims_kept_since();
        self.write_turn(since, turn).await.map(|_| ())
    }

    /// Where it is written, unless another process was first.
    async fn write_turn(&self, since: u64, expected: u64) -> Result<Option<u64>, NatsError> {
        let (subject, payload) = (
            self.names.turn(),
            seal(&JanitorLease { at: now(), since }, b""),
        );
        match self.write(&subject, Some(expected), &payload).await {
            Ok(sequence) => Ok(Some(sequence)),
            Err(WriteError::Conflict) => Ok(None),
            Err(refused) => Err(refused.into_error()),
        }
    }
}
