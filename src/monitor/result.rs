//! The stored response of a job, as the monitor replays it.

use std::{pin::pin, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{self, Entry},
    request::Parts,
};
use tokio::time::timeout;

use super::{
    live_body::{self, ResultRead},
    message,
    page::no_response_page,
    precondition, replay,
    route::Resource,
};
use crate::{
    config::Settings,
    estimate::RETRY_AFTER_WHEN_FULL,
    job::{JobId, Snapshot},
    problem::{Problem, no_result},
    protocol::{
        ASYNC_RESULT, RESULT_TARGET, has_length, is_misleading_for_get, resolve_references,
    },
    registry::Registry,
    store::{Lookup, Purpose, Reading, ResultBody, Store},
};

/// The minimum pause between two looks at whether a read waits for room.
const MIN_ROOM_TIMEOUT: Duration = Duration::from_millis(10);

/// Responds to a GET for the result of an ended job, which is served `at` a resource. If `is_page`
/// is set, the client prefers a page to a problem.
pub(super) async fn result<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
    at: Resource,
    is_page: bool,
    head: &Parts,
) -> Result<Response<ResultBody>, St::Error> {
    let (settings, is_owned) = (&registry.settings, job.owner.is_some());
    let wrapped = |response: Response<ResultBody>, length| {
        let mut wrapped = message::wrap(response, length);
        make_shareable(wrapped.headers_mut(), settings, is_owned);
        precondition::check(head, wrapped)
    };
    let (mut response, target) = match read(registry, job, 0).await? {
        StoredRead::Response(response, target) => (response, target),
        StoredRead::Busy => return Ok(Problem::Busy.response()),
        StoredRead::Missing => {
            if let Some(failure) = job.error.filter(|_| is_page && job.response.is_none()) {
                let status = failure.code.status();
                return Ok(no_response_page(job, status, at, registry));
            }
            let problem = no_response(job);
            let is_wrapped = message::is_wanted(head, settings.dialect, problem.headers());
            return Ok(match problem.body().len() {
                Some(length) if is_wrapped && problem.status() != StatusCode::GONE => {
                    wrapped(problem, length)
                }
                _ => problem,
            });
        }
    };
    if let Some(stored) = &job.response
        && message::is_wanted(head, settings.dialect, response.headers())
    {
        let status = response.status().as_u16();
        let mut wrapped = wrapped(response, stored.content_length);
        wrapped.headers_mut().insert(ASYNC_RESULT, status.into());
        return Ok(watched(wrapped, settings));
    }
    let status = response.status();
    let headers = response.headers_mut();
    make_shareable(headers, settings, is_owned);
    if let Some(target) = &target {
        resolve(headers, target, settings, at);
    }
    headers.insert(ASYNC_RESULT, status.as_u16().into());
    // Here it would delay the read of the result. The status document has it.
    headers.remove(header::RETRY_AFTER);
    if is_misleading_for_get(status) {
        *response.status_mut() = StatusCode::OK;
    }
    // A body that is streamed before its trailers does not know its length.
    if let Some(stored) = &job.response
        && head.method == Method::HEAD
        && has_length(response.status())
    {
        let length = stored.content_length.into();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    let (mut response, range) =
        precondition::apply(head, response, job.id, status == StatusCode::OK);
    if let Some(range) = range {
        // The part takes the place of the whole body in the budget.
        *response.body_mut() = ResultBody::default();
        let part = match read(registry, job, *range.start()).await? {
            StoredRead::Response(part, _) => part,
            StoredRead::Busy => return Ok(Problem::Busy.response()),
            StoredRead::Missing => return Ok(Problem::Gone.response()),
        };
        let mut body = part.into_body();
        body.truncate(range.end() - range.start() + 1);
        *response.body_mut() = body;
    }
    Ok(watched(response, settings))
}

/// Records that a client was sent the result of an ended job, or must ask for it again.
pub(super) fn record_read<St>(registry: &Registry<St>, id: JobId, response: &Response<ResultBody>) {
    let is_stored = response.headers().contains_key(ASYNC_RESULT);
    let has_range = response.headers().contains_key(header::CONTENT_RANGE);
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE if !is_stored => {
            registry.awaited.schedule_fetch(id, RETRY_AFTER_WHEN_FULL);
        }
        StatusCode::PRECONDITION_FAILED if !is_stored => registry.awaited.schedule_fetch(id, 0),
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if has_range => {
            registry.awaited.schedule_fetch(id, 0);
        }
        _ => registry.awaited.taken(id),
    }
}

/// Returns the problem of a read without room. A drain waits until its client comes back.
pub(super) fn busy<St>(registry: &Registry<St>, id: JobId) -> Response<ResultBody> {
    registry.awaited.schedule_fetch(id, RETRY_AFTER_WHEN_FULL);
    let mut busy = Problem::Busy.response();
    registry.hasten(&mut busy);
    busy
}

/// Returns the response that a job ended with, or the problem that replaces it.
async fn stored_response<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
) -> Result<Response<ResultBody>, St::Error> {
    let response = read(registry, job, 0).await?;
    Ok(match response {
        StoredRead::Response(mut response, _) => {
            registry.awaited.taken(job.id);
            let (settings, is_owned) = (&registry.settings, job.owner.is_some());
            make_shareable(response.headers_mut(), settings, is_owned);
            watched(response, settings)
        }
        StoredRead::Busy => busy(registry, job.id),
        StoredRead::Missing => {
            registry.awaited.taken(job.id);
            no_response(job)
        }
    })
}

/// Returns the response of a job that a repeated request joined, as soon as it has a head.
pub(crate) async fn joined_response<St: Store>(
    registry: &Registry<St>,
    id: JobId,
) -> Result<Response<ResultBody>, St::Error> {
    loop {
        let job = match registry.store.get(id).await? {
            Lookup::Found(job) => job,
            Lookup::Gone(_) | Lookup::Unknown => return Ok(Problem::Gone.response()),
        };
        if job.status.is_ended() {
            return stored_response(registry, &job).await;
        }
        // Without a response, the job has ended meanwhile.
        if let Some(Reading { mut response, .. }) = registry.store.read(id, 0).await? {
            let (settings, is_owned) = (&registry.settings, job.owner.is_some());
            response.headers_mut().remove(RESULT_TARGET);
            make_shareable(response.headers_mut(), settings, is_owned);
            let pace = registry.paces.get(id).map(|pace| (0, pace));
            let read = ResultRead::new(registry, id);
            let response = response.map(|body| live_body::live(body, pace, read));
            return Ok(watched(response, settings));
        }
    }
}

/// The result of reading a stored response.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is returned"
)]
enum StoredRead {
    /// The response, and the target of its request if its references depend on that.
    Response(Response<ResultBody>, Option<HeaderValue>),
    Missing,
    /// There was no room to send it.
    Busy,
}

async fn read<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
    from: u64,
) -> Result<StoredRead, St::Error> {
    if job.response.is_none() {
        return Ok(StoredRead::Missing);
    }
    Ok(match read_ended(registry, job.id, from).await? {
        Read::Reading(Reading { mut response, .. }) => {
            let target = response.headers_mut().remove(RESULT_TARGET);
            StoredRead::Response(response, target)
        }
        Read::Missing => StoredRead::Missing,
        Read::Busy => StoredRead::Busy,
    })
}

/// The result of reading what the store has of an ended job.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is returned"
)]
pub(super) enum Read {
    Reading(Reading),
    Missing,
    /// There was no room to send it.
    Busy,
}

/// Reads what the store has of an ended job, from byte `from` of the body on.
pub(super) async fn read_ended<St: Store>(
    registry: &Registry<St>,
    id: JobId,
    from: u64,
) -> Result<Read, St::Error> {
    let budget = registry.store.budget();
    let room_timeout = budget.room_timeout().max(MIN_ROOM_TIMEOUT);
    let mut reading = pin!(registry.store.read(id, from));
    loop {
        match timeout(room_timeout, reading.as_mut()).await {
            Ok(reading) => return Ok(reading?.map_or(Read::Missing, Read::Reading)),
            // The store may wait for room, which other readers have.
            Err(_) if budget.used_for(Purpose::Replay) > 0 => return Ok(Read::Busy),
            Err(_) => {}
        }
    }
}

/// Cuts the response if its client reads nothing for too long.
pub(crate) fn watched(response: Response<ResultBody>, settings: &Settings) -> Response<ResultBody> {
    response.map(|body| replay::watched(body, settings.replay_timeout))
}

fn no_response(job: &Snapshot) -> Response<ResultBody> {
    match &job.error {
        Some(failure) if job.response.is_none() => no_result(failure),
        // The job was evicted a moment ago.
        _ => Problem::Gone.response(),
    }
}

/// Resolves references that are relative to `target` for a response that is served `at` a resource.
pub(super) fn resolve(
    headers: &mut HeaderMap,
    target: &HeaderValue,
    settings: &Settings,
    at: Resource,
) {
    if let Ok(target) = target.to_str() {
        resolve_references(headers, target, |to, path| {
            settings.write_path(to, at.depth(), path);
        });
    }
}

/// Adds what makes a stored response safe as the response to a GET that can be shared.
pub(super) fn make_shareable(headers: &mut HeaderMap, settings: &Settings, is_owned: bool) {
    let private = HeaderValue::from_static("private, no-store");
    match headers.entry(header::CACHE_CONTROL) {
        Entry::Occupied(mut entry) if is_owned => {
            entry.insert(private);
        }
        Entry::Occupied(_) => {}
        Entry::Vacant(entry) => {
            entry.insert(private);
        }
    }
    headers
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    if settings.sandbox_results {
        let sandbox = HeaderValue::from_static("sandbox");
        headers.append(header::CONTENT_SECURITY_POLICY, sandbox);
    }
}
