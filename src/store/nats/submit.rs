//! Accepts a request: writes its body, its record and its message in the queue.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    active::{ActiveClaim, QueueHold},
    chunks,
    claim::NatsClaim,
    clock::{as_millis, unix_now},
    envelope::encode,
    error::NatsError,
    jetstream::JetStream,
    keys::{KeyLookup, look_up_key},
    messages::WriteError,
    process::ProcessState,
    record::{ClaimHolder, JobRecord},
    request::{NatsRecord, QueuedRequest},
};
use crate::{
    JobId,
    store::{Acceptance, NewJob, Purpose},
};

/// Creates a job for the request, or joins the job of an earlier request with the same key.
pub(super) async fn accept(
    process: Arc<ProcessState>,
    mut new: NewJob,
    request: NatsRecord,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    let Some(key) = new.key else {
        if new.join_only {
            return Ok(Acceptance::Full);
        }
        return submit(&process, new, request).await;
    };
    let lookup = look_up_key(&process, &new, &key).await?;
    match lookup {
        KeyLookup::First => submit(&process, new, request).await,
        KeyLookup::Joined(snapshot) => Ok(Acceptance::Joined(snapshot)),
        KeyLookup::Gone => Ok(Acceptance::Gone),
        KeyLookup::Reused => Ok(Acceptance::KeyReused),
        KeyLookup::Full => Ok(Acceptance::Full),
        KeyLookup::Orphaned(id) => {
            new.id = id;
            new.run_here = false;
            let queued = JobRecord::queued(&QueuedRequest::new(&new, &request, None));
            let submitted = submit(&process, new, request).await?;
            match submitted {
                Acceptance::Queued => Ok(Acceptance::Joined(Box::new(queued.snapshot(id)))),
                refused => Ok(refused),
            }
        }
    }
}

/// Puts a request into the queue, which accepts it.
async fn submit(
    process: &ProcessState,
    new: NewJob,
    request: NatsRecord,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    let jetstream = &process.jetstream;
    // Held during the submission, because a client that disconnects releases its upload.
    let charge = jetstream
        .budget
        .reserve(new.request_bytes, Purpose::Accepted);
    let Some(charge) = charge else {
        return Ok(Acceptance::Full);
    };
    let limit = jetstream.options.max_queued;
    if limit.is_some_and(|limit| !process.queue_depth.try_add(limit)) {
        return Ok(Acceptance::Full);
    }
    let (queued, payload) = match prepare(jetstream, &new, &request).await {
        Ok(prepared) => prepared,
        Err(error) => return refuse(jetstream, &new, &request, error).await,
    };
    let submitted = if new.run_here {
        submit_running(process, &new, &queued, &payload).await
    } else {
        submit_queued(jetstream, &new, &queued, &payload).await
    };
    match submitted {
        // The request may be in the queue, so its body stays.
        Err(WriteError::Unknown(error)) => Err(error),
        Err(error) => refuse(jetstream, &new, &request, error).await,
        Ok(Acceptance::RunHere(mut claim)) => {
            claim.charge = Some(charge);
            Ok(Acceptance::RunHere(claim))
        }
        Ok(accepted) => Ok(accepted),
    }
}

/// Encodes the message for the queue, and writes a large body first.
async fn prepare(
    jetstream: &JetStream,
    new: &NewJob,
    request: &NatsRecord,
) -> Result<(QueuedRequest, Bytes), WriteError> {
    if !request.has_readable_fields {
        return Err(WriteError::TooLarge);
    }
    let (body_chunks, body) = if request.body.len() > jetstream.max_inline_bytes() {
        let count = jetstream.write_request_body(new.id, request).await?;
        (Some(count), &[][..])
    } else {
        (None, &request.body[..])
    };
    let queued = QueuedRequest::new(new, request, body_chunks);
    let payload = encode(&queued, body);
    // Check before the record of a running job is written, which a repeated request could join.
    if payload.len() > jetstream.context.client().max_payload() {
        return Err(WriteError::TooLarge);
    }
    Ok((queued, payload))
}

/// Answers a request that did not get into the queue, and removes the chunks of its body.
///
/// Chunks of a request with a key stay until they expire: a repeated request may have written the
/// same ones.
async fn refuse(
    jetstream: &JetStream,
    new: &NewJob,
    request: &NatsRecord,
    error: WriteError,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    if new.key.is_none() && request.body.len() > jetstream.max_inline_bytes() {
        let count = chunks::count(&request.body, jetstream.chunk_bytes());
        if let Err(error) = jetstream.remove_request_body(new.id, count).await {
            tracing::warn!(%error, id = %new.id, "failed to remove the body of a refused request");
        }
    }
    match error {
        WriteError::Full => Ok(Acceptance::Full),
        WriteError::TooLarge => Ok(Acceptance::TooLarge),
        error => Err(error.into_error()),
    }
}

/// Submits a job that any worker may run.
async fn submit_queued(
    jetstream: &JetStream,
    new: &NewJob,
    queued: &QueuedRequest,
    payload: &Bytes,
) -> Result<Acceptance<NatsClaim>, WriteError> {
    let details = &queued.details;
    let listing = jetstream.add_to_owner_list(new.id, details.owner.as_ref(), details.created_at);
    let (enqueued, listed) = tokio::join!(jetstream.enqueue(new.id, payload), listing);
    match enqueued {
        Ok(_) => {
            if let Err(error) = listed {
                // Its claim, its end or a refresh repeats the write.
                tracing::warn!(%error, id = %new.id, "failed to add a job to its owner's list");
            }
            Ok(Acceptance::Queued)
        }
        // A request with a key is not withdrawn: a repeated one may have joined it already.
        Err(WriteError::Unknown(error)) if new.key.is_none() => {
            let withdrawn = withdraw(jetstream, new.id, queued, error).await;
            withdrawn.map_err(WriteError::Unknown)
        }
        Err(error) => Err(error),
    }
}

/// Submits a job that this process runs.
///
/// The record is written before the request, so that any process that gets the request sees the
/// claim.
async fn submit_running(
    process: &ProcessState,
    new: &NewJob,
    queued: &QueuedRequest,
    payload: &Bytes,
) -> Result<Acceptance<NatsClaim>, WriteError> {
    let jetstream = &process.jetstream;
    let (claim, begun, now) = (rand::random(), Instant::now(), unix_now());
    let lease = as_millis(jetstream.options.lease);
    let holder = ClaimHolder {
        claim,
        queue_sequence: None,
        lease_until: Some(now.saturating_add(lease)),
        written_at: now,
    };
    let mut record = JobRecord::begun_here(new, queued, holder);
    let patience = jetstream.client_patience();
    let run = jetstream.names.run(new.id);
    let written = jetstream.put_record(&run, &mut record, b"", 0, Some(claim), patience);
    let Some(run_sequence) = written.await.map_err(WriteError::Unknown)? else {
        // A repeated request with the same key has just created the job.
        return Ok(Acceptance::Queued);
    };
    // Run both writes at once: the lease started before the record was written.
    let details = &queued.details;
    let listing = jetstream.add_to_owner_list(new.id, details.owner.as_ref(), details.created_at);
    let (enqueued, listed) = tokio::join!(jetstream.enqueue(new.id, payload), listing);
    let queue_sequence = match enqueued {
        Ok(sequence) => sequence,
        // A repeated request may have joined this job, so the job must stay. Requeue it, or let its
        // lease expire; a worker then runs it. If it is not in the queue, the next request with the
        // key puts it there.
        Err(WriteError::Unknown(error)) if new.key.is_some() => {
            record.requeue();
            let requeued = jetstream
                .put_record(&run, &mut record, b"", run_sequence, Some(claim), patience)
                .await;
            if let Err(error) = requeued {
                tracing::debug!(%error, id = %new.id, "failed to requeue a job at once");
            }
            return Err(WriteError::Unknown(error));
        }
        Err(error) => {
            // Hide the record. If this fails it expires; no client knows its id.
            record.withdraw();
            let end = jetstream.names.end(new.id);
            let ended = jetstream.put_record(&end, &mut record, b"", 0, None, patience);
            return ended.await.map_err(WriteError::Unknown).and(Err(error));
        }
    };
    if let Err(error) = listed {
        tracing::warn!(%error, id = %new.id, "failed to add a job to its owner's list");
    }
    let may_rerun = queued.may_rerun(&jetstream.options);
    let hold = QueueHold::Sequence(queue_sequence);
    let active = ActiveClaim::new(new.id, claim, hold, may_rerun, record, run_sequence, begun);
    Ok(Acceptance::RunHere(NatsClaim::new(&process.claims, active)))
}

/// Withdraws a request that may or may not be in the queue, unless a worker has claimed it.
///
/// Returns `error` if the request is withdrawn.
async fn withdraw(
    jetstream: &JetStream,
    id: JobId,
    queued: &QueuedRequest,
    error: NatsError,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    let mut record = JobRecord::queued(queued);
    record.withdraw();
    // Creates the subject that a worker's claim would create.
    let run = jetstream.names.run(id);
    let patience = jetstream.client_patience();
    let withdrawn = jetstream.put_record(&run, &mut record, b"", 0, None, patience);
    if withdrawn.await?.is_none() {
        return Ok(Acceptance::Queued);
    }
    // If the message arrives later, the worker that gets it removes it.
    jetstream.remove_from_queue(id).await?;
    Err(error)
}
