//! Ends a job from outside its call: cancels or deletes it.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    error::NatsError,
    jetstream::JetStream,
    part::OutputId,
    record::{ClaimHolder, JobRecord},
    response::ResultChunks,
};
use crate::{
    ErrorCode, Event, JobId,
    store::{Lookup, Revisions},
};

/// The maximum number of rounds if other processes change the job at the same time.
const MAX_ROUNDS: usize = 16;

const RETRY_DELAY: Duration = Duration::from_millis(1);

/// Cancels an unfinished job, and returns the job afterwards.
pub(super) async fn cancel(
    jetstream: &JetStream,
    id: JobId,
    revisions: &Revisions,
) -> Result<Option<Lookup>, NatsError> {
    end(jetstream, id, revisions, false).await
}

/// Deletes a job, and returns the job from before. An unfinished job is canceled.
pub(super) async fn forget(
    jetstream: &JetStream,
    id: JobId,
    revisions: &Revisions,
) -> Result<Option<Lookup>, NatsError> {
    end(jetstream, id, revisions, true).await
}

/// Ends a job unless its revision is not in `revisions`.
///
/// The write that follows the check fails if the job was claimed or ended in between. A report of
/// the running call that is stored in between counts as stored after the cancel.
async fn end(
    jetstream: &JetStream,
    id: JobId,
    revisions: &Revisions,
    forget: bool,
) -> Result<Option<Lookup>, NatsError> {
    let names = &jetstream.names;
    for _ in 0..MAX_ROUNDS {
        // The record to change, and where to write it.
        let (mut record, subject, expected) = match jetstream.record_with_claims(id).await? {
            Some(found) => match found.record.lookup(id) {
                Lookup::Found(job) if job.status.is_ended() => {
                    if !forget && revisions.contains(job.revision) {
                        return Ok(Some(Lookup::Found(job)));
                    }
                    (found.record, found.subject, found.sequence)
                }
                Lookup::Found(_) => (found.record, names.end(id), 0),
                gone => return Ok(Some(gone)),
            },
            None => match jetstream.queue_entry(id).await? {
                // The subject that a worker's claim would create.
                Some(entry) => (JobRecord::queued(&entry.request), names.run(id), 0),
                None => match jetstream.lookup(id).await? {
                    // The job was claimed or ended between the reads.
                    Lookup::Found(_) => continue,
                    gone => return Ok(Some(gone)),
                },
            },
        };
        let before = record.snapshot(id);
        if !revisions.contains(before.revision) {
            return Ok(None);
        }
        let result = record.response.as_ref().and_then(|stored| stored.chunks);
        let holder = record.holder;
        if let Some(ClaimHolder { claim, .. }) = holder {
            // The call can publish nothing from here on, so the part is what its readers get.
            let output = OutputId { job: id, claim };
            record.partial = jetstream.seal(output, ErrorCode::Canceled).await?;
        }
        let output = record.streamed();
        if record.is_ended() {
            settle_deliveries(jetstream, id, &mut record).await?;
        }
        record.end(
            Event::NoResponse(ErrorCode::Canceled),
            jetstream.options.retain,
        );
        if forget {
            record.forgotten = true;
            record.response = None;
            record.partial = None;
        }
        let patience = jetstream.client_patience();
        let written = jetstream.put_record(&subject, &mut record, b"", expected, None, patience);
        if written.await?.is_none() {
            sleep(RETRY_DELAY).await;
            continue;
        }
        let cleaned = async {
            clean_up(jetstream, id, &record, result).await?;
            match output.filter(|_| forget) {
                // The seal stays until a running call has noticed it.
                Some(parts) => {
                    let claim = parts.claim;
                    let (output, with_seal) = (OutputId { job: id, claim }, holder.is_none());
                    jetstream.remove_parts(output, parts.count, with_seal).await
                }
                None => Ok(()),
            }
        };
        if let Err(error) = cleaned.await {
            tracing::warn!(%error, %id, "failed to clean up after a canceled job");
        }
        let job = if forget { before } else { record.snapshot(id) };
        return Ok(Some(Lookup::Found(Box::new(job))));
    }
    Err(NatsError::unavailable("the job keeps changing"))
}

/// Records the deliveries of an ended job before it is forgotten, if its process may have died
/// before it did. No later step records them: those of the forgotten record would be different.
async fn settle_deliveries(
    jetstream: &JetStream,
    id: JobId,
    record: &mut JobRecord,
) -> Result<(), NatsError> {
    // The process that ends a job removes its request after it has recorded the deliveries.
    if record.details.callbacks.is_some() {
        let barrier = &jetstream.job_barrier;
        let entry = barrier.read_from_majority(|| jetstream.queue_entry(id));
        if entry.await?.is_some() {
            jetstream.record_deliveries(id, record).await?;
        }
    }
    record.details.callbacks = None;
    Ok(())
}

/// Removes the request from the queue, and the result of a deleted job.
///
/// If this fails, the worker that gets the request removes it, or else
/// [`JetStream::refresh_queue`] does. The result expires.
async fn clean_up(
    jetstream: &JetStream,
    id: JobId,
    record: &JobRecord,
    result: Option<ResultChunks>,
) -> Result<(), NatsError> {
    jetstream.clean_up(id, record).await?;
    jetstream.remove_from_queue(id).await?;
    match result {
        Some(chunks) => jetstream.remove_result(id, chunks).await,
        None => Ok(()),
    }
}
