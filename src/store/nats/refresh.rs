//! Refreshes the records that belong to queued requests, so that they outlive the retention.

use futures_util::StreamExt;

use super::{
    clock::{as_millis, unix_now},
    error::NatsError,
    jetstream::JetStream,
    messages,
    queue::QueueEntry,
};
use crate::JobId;

/// The number of requests that are refreshed concurrently.
const REFRESH_CONCURRENCY: usize = 32;

impl JetStream {
    /// Refreshes the records of queued requests: keys, list entries and claims of dead processes.
    ///
    /// Also removes requests whose job has ended, which would run again once the end record has
    /// expired. In each [`refresh_interval`](Self::refresh_interval) one process does the work.
    pub(super) async fn refresh_queue(&self) -> Result<(), NatsError> {
        let info = self.streams.queue.get_info().await;
        let info = info.map_err(NatsError::unavailable)?;
        if info.state.messages == 0 {
            return Ok(());
        }
        let Some(lease) = self.acquire_janitor_lease().await? else {
            return Ok(());
        };
        let newest = unix_now().saturating_sub(as_millis(self.refresh_interval()) / 2);
        let all_refreshed = self
            .queue_entries()
            .await?
            .map(|entry| async {
                let (id, entry) = entry?;
                if entry.request.details.created_at < newest {
                    self.refresh_entry(id, &entry).await?;
                }
                Ok(())
            })
            .buffer_unordered(REFRESH_CONCURRENCY)
            .fold(true, async |all, refreshed| match refreshed {
                Ok(()) => all,
                // A process of the version that wrote it looks after it.
                Err(error @ NatsError::Unreadable { .. }) => {
                    tracing::warn!(%error, "skipped an unreadable queued request");
                    all
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to refresh a queued request");
                    false
                }
            })
            .await;
        if all_refreshed {
            Ok(())
        } else {
            self.reset_claims_known(lease).await
        }
    }

    async fn refresh_entry(
        &self,
        id: JobId,
        QueueEntry { request, sequence }: &QueueEntry,
    ) -> Result<(), NatsError> {
        // Most requests were never claimed: this one read shows it. Without a run record there is
        // no end record either.
        let run = messages::last(&self.streams.jobs, &self.names.run(id)).await?;
        if let Some(run) = run {
            // Include the last claim, which may be nowhere else, in the refreshed record.
            let Some(mut known) = self.record_with_claims(id).await? else {
                return Ok(());
            };
            if known.record.is_ended() {
                self.clean_up(id, &known.record).await?;
                return messages::delete(&self.streams.queue, *sequence).await;
            }
            // A live holder refreshes its own record, and earlier than this.
            let max_age = as_millis(self.refresh_interval()).saturating_mul(2);
            if unix_now().saturating_sub(run.written_at) > max_age {
                let claim = known.record.holder.map(|holder| holder.claim);
                let patience = self.client_patience();
                let (subject, at) = (&known.subject, known.sequence);
                self.put_record(subject, &mut known.record, b"", at, claim, patience)
                    .await?;
            }
        }
        self.refresh_index(id, &request.details).await
    }
}
