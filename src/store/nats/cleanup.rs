//! Cleans up when a job has ended.

use std::time::Duration;

use super::{error::NatsError, jetstream::JetStream, part::OutputId, record::JobRecord};
use crate::JobId;

impl JetStream {
    /// Records the deliveries of the end. Rewrites the job's key and list entry, whose retention
    /// starts at the end. Removes the request's body, the outputs of dead processes, and a key that
    /// the end has freed. Parts of a result that are old by now are written again, since they must
    /// not expire before the job.
    ///
    /// Runs before the request leaves the queue, so that a failure is repaired when the queue
    /// delivers the request again. Can be repeated.
    pub(super) async fn clean_up(&self, id: JobId, record: &JobRecord) -> Result<(), NatsError> {
        self.record_deliveries(id, record).await?;
        self.clean_up_recorded(id, record).await
    }

    /// Cleans up after a job whose deliveries are recorded.
    pub(super) async fn clean_up_recorded(
        &self,
        id: JobId,
        record: &JobRecord,
    ) -> Result<(), NatsError> {
        if record.frees_key() {
            self.remove_key(id, &record.details).await?;
        }
        if !record.forgotten {
            self.end_index(id, &record.details).await?;
        }
        if let Some(count) = record.details.body_chunks {
            self.remove_request_body(id, count).await?;
        }
        let kept = record.streamed().map(|parts| parts.claim);
        for &claim in &record.former_claims {
            if Some(claim) != kept {
                self.remove_output(OutputId { job: id, claim }).await?;
            }
        }
        self.keep_output(id, record).await
    }

    /// Writes the parts of a result again that would expire before the job does.
    async fn keep_output(&self, id: JobId, record: &JobRecord) -> Result<(), NatsError> {
        let Some(parts) = record.streamed() else {
            return Ok(());
        };
        // The stream keeps a part for the retention and the slack.
        let max_age = self.result_slack() / 2;
        let ran = record.finished_at.zip(record.started_at);
        let ran = ran.map(|(finished, started)| finished.saturating_sub(started));
        if ran.is_some_and(|millis| Duration::from_millis(millis) < max_age) {
            return Ok(());
        }
        let claim = parts.claim;
        let output = OutputId { job: id, claim };
        self.renew_parts(output, parts.count, max_age).await
    }
}
