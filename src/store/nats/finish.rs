//! The end of a job that comes from its call, or the way back to the queue.

use async_nats::jetstream::AckKind;
use bytes::Bytes;
use http::Response;

use super::{
    NatsError,
    active::{ActiveClaim, Delivery, PATIENCE},
    chunks,
    clock::time_of,
    jetstream::JetStream,
    messages::WriteError,
    record::{ChunkedBody, JobRecord, StoredResponse},
};
use crate::{
    job::{ErrorCode, Event},
    limit::Collected,
    store::{End, Finished, Outcome},
};

/// Ends a job that this process runs, or hands it back.
pub(super) async fn end(
    shared: &JetStream,
    held: &ActiveClaim,
    end: End,
) -> Result<Finished, NatsError> {
    let may_go_on = held.may_rerun || end.started.is_none();
    let (event, kept, body) = match end.outcome {
        Outcome::Broke(ErrorCode::Shutdown) if may_go_on => return hand_back(shared, held).await,
        Outcome::Broke(code) => (Event::Broke(code), None, Bytes::new()),
        Outcome::Response(response) => {
            let event = Event::Responded(response.status());
            match keep_result(shared, held, response).await {
                Ok((kept, body)) => (event, Some(kept), body),
                // Such are the limits that somebody has set.
                Err(WriteError::Full | WriteError::TooLarge) => {
                    tracing::warn!(id = %held.id, "there is no room for a result");
                    (Event::Broke(ErrorCode::ResultTooLarge), None, Bytes::new())
                }
                Err(refused) => return Err(refused.into_error()),
            }
        }
    };
    let started = end.started.map(time_of);
    let retain = shared.options.retain;
    let write = async |event, kept: Option<StoredResponse>, body: &[u8]| {
        let ended = |record: &mut JobRecord| {
            if let Some(at) = started {
                record.start(at);
            }
            record.progress(&end.progress);
            record.response = kept.clone();
            record.end(event, retain);
        };
        held.end(shared, body, ended).await
    };
    let won = match write(event, kept, &body).await {
        Err(NatsError::TooLarge) => {
            let event = Event::Broke(ErrorCode::ResultTooLarge);
            write(event, None, b"").await?
        }
        ended => ended?,
    };
    if !won {
        return late(shared, held).await;
    }
    let (record, body) = {
        let mut state = held.state.lock();
        (state.record.clone(), std::mem::take(&mut state.body))
    };
    let tidied = async {
        // What this process has read it need not look for.
        chunks::remove_at(&shared.streams.requests, body).await?;
        shared.tidy(held.id, &record).await?;
        held.acknowledge(shared).await
    };
    // The request is handed out again then, and whoever gets it sees that its job has ended.
    if let Err(error) = tidied.await {
        tracing::warn!(
            %error,
            id = %held.id,
            "an ended job's request is still in the queue"
        );
    }
    Ok(Finished::First)
}

/// What became of a job that is not this claim's to end.
async fn late(shared: &JetStream, held: &ActiveClaim) -> Result<Finished, NatsError> {
    // This claim has ended it before.
    if held.state.lock().record.is_ended() {
        return Ok(Finished::Late);
    }
    let found = shared.record(held.id).await?;
    let canceled = Some(ErrorCode::Canceled);
    Ok(match found {
        Some(found) if found.record.error != canceled => Finished::TakenOver,
        // Of one that was deleted there may be nothing by now.
        _ => Finished::Late,
    })
}

/// Puts a result's body where it belongs: into the record, or into parts of its own.
async fn keep_result(
    shared: &JetStream,
    held: &ActiveClaim,
    response: Response<Collected>,
) -> Result<(StoredResponse, Bytes), WriteError> {
    let mut kept = StoredResponse::new(&response);
    let body = response.into_body().bytes;
    if body.len() <= shared.inline() {
        return Ok((kept, body));
    }
    let (id, claim) = (held.id, held.claim);
    let subject = |part| shared.names.result_part(id, claim, part);
    let (context, size) = (&shared.context, shared.part());
    let count = chunks::write(context, subject, &body, size, PATIENCE).await?;
    kept.parts = Some(ChunkedBody { claim, count });
    Ok((kept, Bytes::new()))
}

/// Lets another process run it.
async fn hand_back(shared: &JetStream, held: &ActiveClaim) -> Result<Finished, NatsError> {
    let rewritten = held.rewrite(shared, PATIENCE, JobRecord::hand_back);
    if !rewritten.await? {
        return late(shared, held).await;
    }
    if let Delivery::Taken(acker) = &held.delivery {
        // Whoever has claimed it since, this one having been thought dead, is not to lose it; and who claims it
        // only now does not, having written that a moment ago.
        let record = held.state.lock().record.clone();
        if shared.claim_after(held.id, &record).await?.is_some() {
            return Ok(Finished::TakenOver);
        }
        let returned = acker.ack_with(AckKind::Nak(None)).await;
        returned.map_err(NatsError::unavailable)?;
        // Before this process may go: else it is handed out when its lease has ended.
        let flushed = shared.context.client().flush().await;
        flushed.map_err(NatsError::unavailable)?;
    }
    Ok(Finished::HandedBack)
}
