//! Streams the response of a job while it is produced: `GET /jobs/{id}/stream`.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    event_ids::{AddedId, find_event, has_event, identified},
    live_body::{self, ResultRead},
    page::no_response_page,
    replay,
    result::{self, Read},
    route::Resource,
    status,
    stream_head::{self, is_event_stream},
    stream_query::StreamQuery,
};
use crate::{
    job::Snapshot,
    problem::{Problem, no_result},
    protocol::{ASYNC_RESULT, LAST_EVENT_ID},
    registry::Registry,
    store::{Lookup, Reading, ResultBody, Store},
};

/// The time that another process's output may take until this one sees it. A client that was
/// connected to that process may know more of the output than this process does.
const MAX_LAG: Duration = Duration::from_millis(500);

/// The time that a store gets to read what it has, even if the client does not want to wait.
const MIN_READ_TIME: Duration = Duration::from_millis(100);

type StreamResult<St> = Result<Response<ResultBody>, <St as Store>::Error>;

/// Responds to a GET for the output of a job. Waits for its head until `limit` has passed. If
/// `is_page` is set, the client prefers a page to a problem.
pub(super) async fn stream<St: Store>(
    registry: &Registry<St>,
    job: Box<Snapshot>,
    limit: Duration,
    is_page: bool,
    head: &Parts,
) -> StreamResult<St> {
    let Some(query) = StreamQuery::parse(head.uri.query().unwrap_or_default()) else {
        return Ok(Problem::BadOffset(None).response());
    };
    let mut output = StreamReader {
        registry,
        job,
        is_page,
        deadline: Instant::now() + limit,
    };
    match output.find(&query, head).await? {
        Ok(found) => Ok(respond(&output, &query, found)),
        Err(response) => Ok(response),
    }
}

/// The output of a job, for one request.
struct StreamReader<'a, St> {
    registry: &'a Registry<St>,
    job: Box<Snapshot>,
    /// Set if the client prefers a page to a problem.
    is_page: bool,
    deadline: Instant,
}

/// The part of an output that answers a request.
struct FoundPart {
    reading: Reading,
    from: u64,
}

type Found<T> = Result<T, Response<ResultBody>>;

impl<St: Store> StreamReader<'_, St> {
    /// Finds the part of the output that a request asks for, or the response instead of it.
    async fn find(
        &mut self,
        query: &StreamQuery,
        head: &Parts,
    ) -> Result<Found<FoundPart>, St::Error> {
        let mut from = query.offset;
        let mut reading = match self.read(from).await? {
            Ok(reading) => reading,
            Err(response) => return Ok(Err(response)),
        };
        let run = reading.run;
        let last_event_id = head.headers.get(LAST_EVENT_ID);
        let last_event_id = last_event_id.filter(|_| is_event_stream(reading.response.headers()));
        if last_event_id.is_some() {
            // It wins over the offset.
            from = 0;
        }
        if !query.accepts(run, from, self.job.id, &head.headers) {
            return Ok(Err(Problem::OutputRestarted.response()));
        }
        if let Some(id) = last_event_id {
            let added = AddedId::parse(id.as_bytes()).filter(|_| query.ids);
            from = match added {
                Some(added) if added.run != run => {
                    return Ok(Err(Problem::OutputRestarted.response()));
                }
                Some(added) => added.offset,
                // An id of the service does not name its run.
                None if run > 1 && !query.names_run(&head.headers) => {
                    return Ok(Err(Problem::OutputRestarted.response()));
                }
                None => match self.find_event(run, id.as_bytes()).await? {
                    Ok(offset) => offset,
                    Err(response) => return Ok(Err(response)),
                },
            };
            reading = match self.read_run(run, from).await? {
                Ok(reading) => reading,
                Err(response) => return Ok(Err(response)),
            };
        }
        if from > reading.available && !self.job.status.is_ended() {
            sleep(MAX_LAG).await;
            reading = match self.read_run(run, from).await? {
                Ok(reading) => reading,
                Err(response) => return Ok(Err(response)),
            };
        }
        if from > reading.available {
            let available = reading.available;
            return Ok(Err(Problem::BadOffset(Some(available)).response()));
        }
        if last_event_id.is_some() && self.job.status.is_ended() {
            // An `EventSource` reconnects whenever its stream ends, until it receives a 204.
            if !has_event(reading.response.into_body()).await {
                return Ok(Err(status::empty(StatusCode::NO_CONTENT)));
            }
            reading = match self.read_run(run, from).await? {
                Ok(reading) => reading,
                Err(response) => return Ok(Err(response)),
            };
        }
        Ok(Ok(FoundPart { reading, from }))
    }

    /// Reads the output of `run` from byte `from` on.
    async fn read_run(&mut self, run: u32, from: u64) -> Result<Found<Reading>, St::Error> {
        Ok(self.read(from).await?.and_then(|reading| {
            if reading.run == run {
                Ok(reading)
            } else {
                Err(Problem::OutputRestarted.response())
            }
        }))
    }

    /// Returns the offset after the event with this id, or 0 if it is unknown.
    async fn find_event(&mut self, run: u32, id: &[u8]) -> Result<Found<u64>, St::Error> {
        let whole = match self.read_run(run, 0).await? {
            Ok(whole) => whole,
            Err(response) => return Ok(Err(response)),
        };
        let found = find_event(whole.response.into_body(), whole.available, id).await;
        // An output that cannot be read fails again when it is sent.
        Ok(Ok(found.ok().flatten().unwrap_or(0)))
    }

    /// Reads the output from byte `from` on, as soon as it has a head.
    async fn read(&mut self, from: u64) -> Result<Found<Reading>, St::Error> {
        let (registry, id) = (self.registry, self.job.id);
        if !self.job.status.is_ended() {
            // A later read of one request gets the time for it, too.
            let deadline = self.deadline.max(Instant::now() + MIN_READ_TIME);
            let read = timeout_at(deadline, registry.store.read(id, from)).await;
            let has_waited = read.is_err();
            if let Ok(reading) = read
                && let Some(reading) = reading?
            {
                return Ok(Ok(reading));
            }
            // It may have ended without output, or have been removed.
            if let Err(response) = self.look().await? {
                return Ok(Err(response));
            }
            if has_waited && !self.job.status.is_ended() {
                let pending = status::pending(&self.job, Resource::Stream, registry);
                return Ok(Err(pending));
            }
        }
        if let (None, None, Some(failure)) =
            (&self.job.response, &self.job.partial, &self.job.error)
        {
            let status = failure.code.status();
            return Ok(Err(if self.is_page {
                no_response_page(&self.job, status, Resource::Stream, registry)
            } else {
                registry.awaited.taken(id);
                no_result(failure)
            }));
        }
        Ok(match result::read_ended(registry, id, from).await? {
            Read::Reading(reading) => Ok(reading),
            Read::Busy => Err(result::busy(registry, id)),
            Read::Missing => Err(Problem::Gone.response()),
        })
    }

    /// Looks the job up again.
    async fn look(&mut self) -> Result<Found<()>, St::Error> {
        Ok(match self.registry.store.get(self.job.id).await? {
            Lookup::Found(job) => {
                self.job = job;
                Ok(())
            }
            Lookup::Gone(_) => Err(Problem::Gone.response()),
            Lookup::Unknown => Err(Problem::NotFound.response()),
        })
    }
}

/// Responds with a part of an output, and with what follows.
fn respond<St>(
    output: &StreamReader<'_, St>,
    query: &StreamQuery,
    found: FoundPart,
) -> Response<ResultBody> {
    let FoundPart { reading, from } = found;
    let settings = &output.registry.settings;
    let run = reading.run;
    let (mut head, mut body) = reading.response.into_parts();
    let mut pace = output.registry.paces.get(output.job.id);
    if query.ids && is_event_stream(&head.headers) {
        body = identified(body, run, from, pace.take());
    }
    let status = head.status;
    stream_head::finish(&mut head, settings, output.job.owner.is_some(), from);
    let headers = &mut head.headers;
    headers.insert(header::ETAG, stream_head::etag(output.job.id, run));
    let code = HeaderValue::from(status.as_u16());
    headers.insert(ASYNC_RESULT, code);
    let read = ResultRead::new(output.registry, output.job.id);
    let body = live_body::live(body, pace.map(|pace| (from, pace)), read);
    Response::from_parts(head, replay::watched(body, settings.replay_timeout))
}
