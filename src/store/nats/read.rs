//! Reads the response of a job, once the job has ended.

use std::{future::poll_fn, pin::pin, sync::Arc};

use bytes::Bytes;
use futures_core::Stream;

use super::{
    changes::NatsChanges,
    error::NatsError,
    lookup::LocatedJob,
    process::ProcessState,
    response::ResponseRecord,
    result_body::{ResultReader, reserve_replay},
};
use crate::{
    JobId,
    store::{Reading, ResultBody, compact, fields_price},
};

/// The response that a job ended with.
struct EndedResponse {
    /// The number of the call that wrote it.
    run: u32,
    stored: ResponseRecord,
    /// The body, if the record holds it.
    inline: Bytes,
}

/// Reads the response of a job from byte `from` of its body on. Waits for the job's end.
pub(super) async fn read(
    process: &Arc<ProcessState>,
    id: JobId,
    from: u64,
) -> Result<Option<Reading>, NatsError> {
    let Some(ended) = wait_for_response(process, id).await? else {
        return Ok(None);
    };
    let EndedResponse {
        run,
        stored,
        inline,
    } = ended;
    let (length, chunks) = (stored.body_bytes, stored.chunks);
    let head = stored.into_head();
    let subject = || process.jetstream.names.end(id);
    let (response, trailers) = head.map_err(|error| NatsError::unreadable(&subject(), error))?;
    let body = match chunks {
        Some(chunks) if from < length => {
            let reader = ResultReader::new(process.clone(), id, chunks, length, from);
            match reader.into_body(trailers).await? {
                Some(body) => body,
                // Gone with its job, or lost by itself.
                None if wait_for_response(process, id).await?.is_none() => return Ok(None),
                None => return Err(NatsError::unavailable("the result's body is missing")),
            }
        }
        // The rest of a body in chunks is empty here.
        _ => {
            let start = usize::try_from(from).unwrap_or(usize::MAX);
            let rest = inline.slice(start.min(inline.len())..);
            let budget = &process.jetstream.budget;
            let bytes = rest.len() + trailers.as_ref().map_or(0, fields_price);
            let charge = reserve_replay(budget, bytes).await?;
            // The rest may be a small part of the message.
            ResultBody::new(compact(rest), trailers).with_charge(charge)
        }
    };
    Ok(Some(Reading::new(run, length, response.map(|()| body))))
}

/// Waits for the end of a job. Returns `None` if there is no such job, or if it has no response.
async fn wait_for_response(
    process: &Arc<ProcessState>,
    id: JobId,
) -> Result<Option<EndedResponse>, NatsError> {
    let jetstream = &process.jetstream;
    let mut found = jetstream.find_job(id).await?;
    if found.as_ref().is_some_and(|job| !job.record.is_ended()) {
        // The stream ends with the job.
        let mut changes = pin!(NatsChanges::new(process, id));
        while poll_fn(|cx| changes.as_mut().poll_next(cx)).await.is_some() {}
        found = jetstream.find_job(id).await?;
    }
    let found = found.filter(|job| !job.record.forgotten && !job.record.is_expired());
    Ok(found.and_then(|LocatedJob { record, body }| {
        Some(EndedResponse {
            run: record.attempts,
            stored: record.response?,
            inline: body,
        })
    }))
}
