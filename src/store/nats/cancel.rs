//! Ends of jobs that do not come from their calls.

use std::time::Duration;

use super::{
    NatsError, chunks,
    jetstream::JetStream,
    record::{ChunkedBody, JobRecord},
};
use crate::{
    job::{ErrorCode, Event, JobId},
    store::Lookup,
};

/// How often a job that changes under one's hands is looked at again.
const ROUNDS: usize = 16;

/// Cancels a job that has not ended, and returns it as it is then; or forgets it, whatever it is, and
/// returns it as it was.
pub(super) async fn end(shared: &JetStream, id: JobId, forget: bool) -> Result<Lookup, NatsError> {
    for _ in 0..ROUNDS {
        let (mut record, subject, at) = match shared.record(id).await? {
            Some(found) => match found.lookup(id) {
                Lookup::Found(job) if job.status.is_ended() && !forget => {
                    return Ok(Lookup::Found(job));
                }
                // Of an ended one only whether it is remembered changes.
                Lookup::Found(job) if job.status.is_ended() => {
                    (found.record, found.subject, found.sequence)
                }
                Lookup::Found(_) => (found.record, shared.names.end(id), 0),
                none => return Ok(none),
            },
            None => match shared.waiting(id).await? {
                // In the way of whoever would claim it.
                Some(waiting) => (JobRecord::queued(&waiting.asked), shared.names.run(id), 0),
                None => match shared.lookup(id).await? {
                    // It was claimed, or even ended, in between.
                    Lookup::Found(_) => continue,
                    none => return Ok(none),
                },
            },
        };
        let was = record.snapshot(id);
        let result = record.response.as_ref().and_then(|kept| kept.parts);
        record.end(Event::Broke(ErrorCode::Canceled), shared.options.retain);
        if forget {
            record.forgotten = true;
            record.response = None;
        }
        let patience = shared.patience();
        let put = shared.put(&subject, &mut record, b"", at, None, patience);
        if put.await?.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        if let Err(error) = clear(shared, id, &record, result).await {
            tracing::warn!(
                %error,
                %id,
                "an ended job's request is still in the queue"
            );
        }
        let job = match forget {
            true => was,
            false => record.snapshot(id),
        };
        return Ok(Lookup::Found(Box::new(job)));
    }
    Err(NatsError::unavailable("a job changes over and over"))
}

/// Takes the request of an ended job out of the queue, and its result away. Should that fail, whoever is
/// handed the request does the one, or who [tends](JetStream::tend_waiting) what waits, and the result is nobody's
/// and expires.
async fn clear(
    shared: &JetStream,
    id: JobId,
    record: &JobRecord,
    result: Option<ChunkedBody>,
) -> Result<(), NatsError> {
    shared.tidy(id, record).await?;
    shared.take_out(id).await?;
    match result {
        Some(ChunkedBody { claim, count }) => {
            let subject = |part| shared.names.result_part(id, claim, part);
            chunks::remove(&shared.streams.results, subject, count).await
        }
        None => Ok(()),
    }
}
