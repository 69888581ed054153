//! Ends a job that this process runs, or requeues it at shutdown.

use async_nats::jetstream::AckKind;
use bytes::Bytes;

use super::{
    active::{ActiveClaim, Delivery, END_PATIENCE},
    chunks,
    clock::system_time,
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    record::JobRecord,
    response::ResponseRecord,
    writer::NatsWriter,
};
use crate::{
    ErrorCode, Event,
    store::{End, Finished, KeyOutcome, Outcome},
};

/// Ends a job. A job that may run again is requeued instead if the process shuts down.
pub(super) async fn finish(
    jetstream: &JetStream,
    active: &ActiveClaim,
    end: End<NatsWriter>,
) -> Result<Finished, NatsError> {
    let may_run_again = active.may_rerun || end.started.is_none();
    // Holds the charge of the response until the end is written.
    let collected;
    let (event, response, body) = match end.outcome {
        Outcome::NoResponse(ErrorCode::Shutdown) if may_run_again => {
            return requeue(jetstream, active).await;
        }
        Outcome::NoResponse(code) => (Event::NoResponse(code), None, Bytes::new()),
        Outcome::Response(writer) => {
            collected = writer.finish();
            let (head, body) = &collected;
            let (id, claim) = (active.id, active.claim);
            let stored = jetstream.store_result(id, claim, head, body, END_PATIENCE);
            match stored.await {
                Ok((response, body)) => (Event::Responded(head.status), Some(response), body),
                // An operator has set a limit on the stream of results.
                Err(WriteError::Full | WriteError::TooLarge) => {
                    tracing::warn!(%id, "failed to store a result: the stream's limit is reached");
                    let event = Event::NoResponse(ErrorCode::ResultTooLarge);
                    (event, None, Bytes::new())
                }
                Err(error) => return Err(error.into_error()),
            }
        }
    };
    let started = end.started.map(system_time);
    let retain = jetstream.options.retain;
    let write = async |event, response: Option<ResponseRecord>, body: &[u8]| {
        let change = |record: &mut JobRecord| {
            if let Some(at) = started {
                record.start(at);
            }
            record.set_progress(&end.progress);
            record.response = response.clone();
            record.is_key_released = end.key == KeyOutcome::Release;
            record.end(event, retain);
        };
        active.write_end(jetstream, body, change).await
    };
    let is_first = match write(event, response, &body).await {
        // The response's head alone exceeds a message.
        Err(NatsError::TooLarge) => {
            let event = Event::NoResponse(ErrorCode::ResultTooLarge);
            write(event, None, b"").await?
        }
        written => written?,
    };
    if !is_first {
        return explain_late_end(jetstream, active).await;
    }
    // If this fails, the queue delivers the request again, and the next worker cleans up.
    if let Err(error) = clean_up(jetstream, active).await {
        tracing::warn!(%error, id = %active.id, "failed to clean up after a job's end");
    }
    Ok(Finished::First)
}

async fn clean_up(jetstream: &JetStream, active: &ActiveClaim) -> Result<(), NatsError> {
    let (record, body_sequences) = {
        let mut state = active.state.lock();
        let body_sequences = std::mem::take(&mut state.body_sequences);
        (state.record.clone(), body_sequences)
    };
    // This process has read the chunks, so it need not look for them.
    chunks::remove_at(&jetstream.streams.requests, body_sequences).await?;
    jetstream.clean_up(active.id, &record).await?;
    active.acknowledge(jetstream).await
}

/// Finds out why a claim could not end its job.
async fn explain_late_end(
    jetstream: &JetStream,
    active: &ActiveClaim,
) -> Result<Finished, NatsError> {
    // This claim has ended the job before.
    if active.state.lock().record.is_ended() {
        return Ok(Finished::Late);
    }
    let found = jetstream.record(active.id).await?;
    let canceled = Some(ErrorCode::Canceled);
    Ok(match found {
        Some(found) if found.record.error != canceled => Finished::TakenOver,
        // Canceled. A deleted job may have no record any more.
        _ => Finished::Late,
    })
}

/// Releases the claim and requeues the request, so that another process runs it.
async fn requeue(jetstream: &JetStream, active: &ActiveClaim) -> Result<Finished, NatsError> {
    let released = active.update_record(jetstream, END_PATIENCE, JobRecord::requeue);
    if !released.await? {
        return explain_late_end(jetstream, active).await;
    }
    if let Delivery::Acker(acker) = &active.delivery {
        // If another process considered this one dead and has claimed the request, a negative
        // acknowledgement would requeue that process's delivery. A process that claims it only now
        // is safe: it has just written its claim, so it counts as alive.
        let record = active.state.lock().record.clone();
        let next_claim = jetstream.next_claim(active.id, &record).await?;
        if next_claim.is_some() {
            return Ok(Finished::TakenOver);
        }
        let sent = acker.ack_with(AckKind::Nak(None)).await;
        sent.map_err(NatsError::unavailable)?;
        // This process may exit right after, and unsent bytes with it.
        let flushed = jetstream.context.client().flush().await;
        flushed.map_err(NatsError::unavailable)?;
    }
    Ok(Finished::HandedBack)
}
