//! Reads the response of a job: while its call produces it, or once the job has ended.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::time::timeout;

use super::{
    charged::reserve_replay,
    error::NatsError,
    follower::OutputFollower,
    lookup::LocatedJob,
    output_body::{EndedOutput, OutputReader},
    output_view::OutputEnd,
    part::{OutputId, OutputStart},
    process::ProcessState,
    response::{ResponseRecord, StreamedParts},
    result_body::ResultReader,
};
use crate::{
    JobId,
    store::{Reading, ResultBody, compact, fields_price},
};

/// The maximum number of rounds if responses are removed while they are opened.
const MAX_ROUNDS: usize = 8;

/// The time until this process knows why data is missing. Then it counts as lost.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The response of a job, as its readers find it.
enum LocatedResponse {
    Live(FollowableOutput),
    Ended(Arc<LocatedJob>),
    Nothing,
}

/// An output that a call produces.
struct FollowableOutput {
    follower: Arc<OutputFollower>,
    id: OutputId,
    start: Arc<OutputStart>,
    /// The number of bytes so far.
    bytes: u64,
}

/// The response that a job ended with, or a part of one.
struct EndedResponse {
    /// The number of the call that wrote it.
    run: u32,
    stored: ResponseRecord,
    /// Set if it is a part of a response that broke off.
    is_broken: bool,
    /// The body, if the record holds it.
    inline: Bytes,
}

/// Reads the response of a job from byte `from` of its body on. Waits until there is one.
pub(super) async fn read(
    process: &Arc<ProcessState>,
    id: JobId,
    from: u64,
) -> Result<Option<Reading>, NatsError> {
    let missing = || NatsError::unavailable("the result's body is missing");
    let mut is_ended = false;
    for _ in 0..MAX_ROUNDS {
        match find(process, id).await? {
            LocatedResponse::Nothing => return Ok(None),
            LocatedResponse::Live(live) => {
                let (follower, output) = (live.follower.clone(), live.id);
                if let Some(reading) = live.read(process, from).await? {
                    return Ok(Some(reading));
                }
                // The call has been handed back, or has died and runs again.
                let mut views = follower.view();
                let changed = views.wait_for(|view| {
                    let current = view.output.as_ref().map(|output| output.id);
                    view.end.is_some() || current != Some(output)
                });
                let changed = timeout(CHANGE_TIMEOUT, changed).await;
                changed
                    .map_err(|_| missing())?
                    .map_err(NatsError::unavailable)?;
            }
            LocatedResponse::Ended(job) => {
                let Some(ended) = EndedResponse::of(&job) else {
                    return Ok(None);
                };
                if let Some(reading) = ended.read(process, id, from).await? {
                    return Ok(Some(reading));
                }
                // Gone with its job, or lost by itself.
                if is_ended {
                    break;
                }
                is_ended = true;
            }
        }
    }
    Err(missing())
}

/// Waits until a job has a response, or has ended.
async fn find(process: &Arc<ProcessState>, id: JobId) -> Result<LocatedResponse, NatsError> {
    let jetstream = &process.jetstream;
    let run = match jetstream.find_job_with_claims(id).await? {
        None => return Ok(LocatedResponse::Nothing),
        Some(job) if job.record.is_ended() => {
            let is_gone = job.record.forgotten || job.record.is_expired();
            return Ok(if is_gone {
                LocatedResponse::Nothing
            } else {
                LocatedResponse::Ended(Arc::new(job))
            });
        }
        Some(job) => job.record.current_run(),
    };
    let follower = process
        .followers
        .follow(jetstream, &process.subscribers, id);
    let mut views = follower.view();
    // The follower of other readers may not know yet that an earlier call is over.
    let view = views.wait_for(|view| {
        let output = view.output.as_ref();
        view.end.is_some() || output.is_some_and(|output| output.start.run >= run)
    });
    let view = view.await.map_err(NatsError::unavailable)?;
    Ok(match (&view.end, &view.output) {
        (Some(OutputEnd::Ended(job)), _) => LocatedResponse::Ended(job.clone()),
        (None, Some(output)) => LocatedResponse::Live(FollowableOutput {
            follower: follower.clone(),
            id: output.id,
            start: output.start.clone(),
            bytes: output.bytes,
        }),
        _ => LocatedResponse::Nothing,
    })
}

impl FollowableOutput {
    /// Returns `None` if the output has just been removed.
    async fn read(self, process: &ProcessState, from: u64) -> Result<Option<Reading>, NatsError> {
        let Self {
            follower,
            id,
            start,
            bytes,
        } = self;
        let OutputStart {
            run,
            length,
            response,
        } = OutputStart::clone(&start);
        let (head, _) = into_head(process, id.job, response)?;
        let reader = OutputReader::live(&process.jetstream, follower, id, from).await?;
        Ok(reader.map(|reader| {
            let body = reader.into_body(length.map(|length| length.saturating_sub(from)));
            Reading::new(run, bytes, head.map(|()| body))
        }))
    }
}

impl EndedResponse {
    fn of(job: &LocatedJob) -> Option<Self> {
        let LocatedJob { record, body } = job;
        let stored = record.response.as_ref().or(record.partial.as_ref());
        Some(Self {
            run: record.attempts,
            stored: stored?.clone(),
            is_broken: record.response.is_none(),
            inline: body.clone(),
        })
    }

    /// Returns `None` if the body is missing.
    async fn read(
        self,
        process: &Arc<ProcessState>,
        job: JobId,
        from: u64,
    ) -> Result<Option<Reading>, NatsError> {
        let Self {
            run,
            stored,
            is_broken,
            inline,
        } = self;
        let jetstream = &process.jetstream;
        let (length, chunks, parts) = (stored.body_bytes, stored.chunks, stored.streamed);
        let (head, trailers) = into_head(process, job, stored)?;
        let body = if let Some(StreamedParts { claim, count }) = parts {
            let id = OutputId { job, claim };
            let end = EndedOutput {
                count,
                trailers,
                is_broken,
            };
            let reader = OutputReader::ended(jetstream, id, end, length, from).await?;
            // A part that broke off may declare more than there is.
            let left = (!is_broken).then(|| length.saturating_sub(from));
            reader.map(|reader| reader.into_body(left))
        } else if let Some(chunks) = chunks.filter(|_| from < length) {
            let reader = ResultReader::new(process.clone(), job, chunks, length, from);
            reader.into_body(trailers).await?
        } else {
            // The rest of a body in chunks is empty here.
            let start = usize::try_from(from).unwrap_or(usize::MAX);
            let rest = inline.slice(start.min(inline.len())..);
            let bytes = rest.len() + trailers.as_ref().map_or(0, fields_price);
            let charge = reserve_replay(&jetstream.budget, bytes).await?;
            // The rest may be a small part of the message.
            Some(ResultBody::new(compact(rest), trailers).with_charge(charge))
        };
        Ok(body.map(|body| Reading::new(run, length, head.map(|()| body))))
    }
}

fn into_head(
    process: &ProcessState,
    id: JobId,
    stored: ResponseRecord,
) -> Result<(Response<()>, Option<HeaderMap>), NatsError> {
    let head = stored.into_head();
    head.map_err(|error| NatsError::unreadable(&process.jetstream.names.end(id), error))
}
