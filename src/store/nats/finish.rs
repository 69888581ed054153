//! Ends a job that this process runs, or requeues it at shutdown.

use async_nats::jetstream::AckKind;
use bytes::Bytes;

use super::{
    active::{ActiveClaim, END_PATIENCE, QueueHold},
    chunks,
    clock::system_time,
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    output::PublishedOutput,
    record::JobRecord,
    response::ResponseRecord,
    writer::NatsWriter,
};
use crate::{
    ErrorCode, Event,
    store::{BufferedBody, Charge, End, Finished, KeyOutcome, Outcome},
};

/// The outcome of a call as the record of the end stores it.
enum OutcomeRecord {
    Response {
        response: ResponseRecord,
        /// The body, if it is within the record.
        inline: Bytes,
        /// The charge of the body until the end is written.
        _charge: Option<Charge>,
    },
    /// No response, but perhaps a part of one.
    NoResponse(ErrorCode, Option<ResponseRecord>),
    /// Another process has sealed the output to end the job so, and has perhaps not ended it.
    Sealed(ErrorCode, Option<ResponseRecord>),
}

impl OutcomeRecord {
    fn event(&self) -> Event {
        match self {
            Self::Response { response, .. } => Event::Responded(response.status()),
            Self::NoResponse(code, _) | Self::Sealed(code, _) => Event::NoResponse(*code),
        }
    }

    fn apply(&self, record: &mut JobRecord) {
        match self {
            Self::Response { response, .. } => record.response = Some(response.clone()),
            Self::NoResponse(_, part) | Self::Sealed(_, part) => record.partial = part.clone(),
        }
    }

    fn inline_body(&self) -> &[u8] {
        match self {
            Self::Response { inline, .. } => inline,
            Self::NoResponse(..) | Self::Sealed(..) => b"",
        }
    }
}

/// Ends a job. A job that may run again is requeued instead if the process shuts down.
pub(super) async fn finish(
    jetstream: &JetStream,
    active: &ActiveClaim,
    end: End<NatsWriter>,
) -> Result<Finished, NatsError> {
    let has_response = matches!(end.outcome, Outcome::Response(_));
    let may_run_again = active.may_rerun || end.started.is_none();
    let outcome = match end.outcome {
        Outcome::NoResponse(ErrorCode::Shutdown) if may_run_again => {
            return requeue(jetstream, active).await;
        }
        Outcome::NoResponse(code) => {
            let part = match active.take_output() {
                Some(output) => output.break_off(END_PATIENCE).await,
                None => None,
            };
            OutcomeRecord::NoResponse(code, part)
        }
        Outcome::Response(writer) => store_response(jetstream, active, writer).await?,
    };
    let started = end.started.map(system_time);
    let retain = jetstream.options.retain;
    let write = async |outcome: &OutcomeRecord| {
        let change = |record: &mut JobRecord| {
            if let Some(at) = started {
                record.start(at);
            }
            let fraction = record.fraction;
            record.set_progress(&end.progress);
            if has_response && !matches!(outcome, OutcomeRecord::Response { .. }) {
                // The response could not be stored, so the job is not complete.
                record.fraction = fraction;
            }
            outcome.apply(record);
            record.is_key_released = end.key == KeyOutcome::Release;
            record.end(outcome.event(), retain);
        };
        let body = outcome.inline_body();
        active.write_end(jetstream, body, change).await
    };
    let is_first = match write(&outcome).await {
        // The response's head alone exceeds a message.
        Err(NatsError::TooLarge) => {
            let too_large = OutcomeRecord::NoResponse(ErrorCode::ResultTooLarge, None);
            write(&too_large).await?
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
    Ok(match outcome {
        OutcomeRecord::Sealed(..) => Finished::Late,
        OutcomeRecord::Response { .. } | OutcomeRecord::NoResponse(..) => Finished::First,
    })
}

/// Stores the body of a whole response, unless it fits into the record of the end.
async fn store_response(
    jetstream: &JetStream,
    active: &ActiveClaim,
    writer: NatsWriter,
) -> Result<OutcomeRecord, NatsError> {
    if let Some((response, body)) = writer.into_buffered() {
        return store_body(jetstream, active, response, body).await;
    }
    let Some(output) = active.take_output() else {
        return Err(NatsError::unavailable("the output was dropped"));
    };
    match output.complete(END_PATIENCE).await? {
        PublishedOutput::Nothing(response, body) => {
            store_body(jetstream, active, response, body).await
        }
        PublishedOutput::Whole(response) => Ok(OutcomeRecord::Response {
            response,
            inline: Bytes::new(),
            _charge: None,
        }),
        PublishedOutput::Sealed(code, part) => Ok(OutcomeRecord::Sealed(code, part)),
        PublishedOutput::Refused(part) => Ok(refused(active, part)),
    }
}

/// Stores the body of a response without published parts.
async fn store_body(
    jetstream: &JetStream,
    active: &ActiveClaim,
    response: ResponseRecord,
    body: BufferedBody,
) -> Result<OutcomeRecord, NatsError> {
    let (id, claim) = (active.id, active.claim);
    let stored = jetstream.store_result(id, claim, response, &body.bytes, END_PATIENCE);
    match stored.await {
        Ok((response, inline)) => Ok(OutcomeRecord::Response {
            response,
            inline,
            _charge: body.charge,
        }),
        Err(WriteError::Full | WriteError::TooLarge) => Ok(refused(active, None)),
        Err(error) => Err(error.into_error()),
    }
}

/// Returns the outcome if an operator has set a limit on the stream of results.
fn refused(active: &ActiveClaim, part: Option<ResponseRecord>) -> OutcomeRecord {
    let id = active.id;
    tracing::warn!(%id, "failed to store a result: the stream's limit is reached");
    OutcomeRecord::NoResponse(ErrorCode::ResultTooLarge, part)
}

async fn clean_up(jetstream: &JetStream, active: &ActiveClaim) -> Result<(), NatsError> {
    let (record, body_sequences) = {
        let mut state = active.state.lock();
        let body_sequences = std::mem::take(&mut state.body_sequences);
        (state.record.clone(), body_sequences)
    };
    // First, so that no other failure delays them.
    jetstream.record_deliveries(active.id, &record).await?;
    // This process has read the chunks, so it need not look for them.
    chunks::remove_at(&jetstream.streams.requests, body_sequences).await?;
    if active.published().is_some() {
        active.discard_output(jetstream, Some(&record)).await?;
    }
    jetstream.clean_up_recorded(active.id, &record).await?;
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
    let record = found.as_ref().map(|found| &found.record);
    if let Err(error) = active.discard_output(jetstream, record).await {
        tracing::warn!(%error, id = %active.id, "failed to remove the output of a lost job");
    }
    let canceled = Some(ErrorCode::Canceled);
    Ok(match found {
        Some(found) if found.record.error != canceled => Finished::TakenOver,
        // Canceled. A deleted job may have no record any more.
        _ => Finished::Late,
    })
}

/// Releases the claim and requeues the request, so that another process runs it.
async fn requeue(jetstream: &JetStream, active: &ActiveClaim) -> Result<Finished, NatsError> {
    // The next call produces another output.
    drop(active.take_output());
    let released = active.update_record(jetstream, END_PATIENCE, JobRecord::requeue);
    if !released.await? {
        return explain_late_end(jetstream, active).await;
    }
    if active.published().is_some() {
        let removed = active.discard_output(jetstream, None).await;
        if let Err(error) = removed {
            tracing::warn!(%error, id = %active.id, "failed to remove output of a requeued job");
        }
    }
    if let QueueHold::Acker(acker) = &active.hold {
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
