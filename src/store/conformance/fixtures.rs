//! Requests, responses and steps that several checks use.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request, response};
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::violation::{CheckResult, Violation, ensure, ensure_eq, within};
use crate::{
    job::{ErrorCode, JobId, Snapshot},
    store::{
        Acceptance, End, Finished, Lookup, NewJob, NoRoom, Outcome, Reading, Revisions, Store,
        Writer,
    },
};

/// The pause before a check looks again.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Values that a store must neither change nor reorder.
pub(super) fn header_values() -> impl Iterator<Item = HeaderValue> {
    let values = [&b"plain"[..], b"", b"\xff\x80caf\xe9", b"\"quoted\", \\"];
    let mut values: Vec<_> = values
        .into_iter()
        .filter_map(|value| HeaderValue::from_bytes(value).ok())
        .collect();
    let mut secret = HeaderValue::from_static("secret");
    secret.set_sensitive(true);
    values.push(secret);
    values.into_iter()
}

/// Returns bytes of this length, whose order matters.
pub(super) fn bytes(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 % 251) as u8).collect()
}

pub(super) fn request_head(method: Method) -> request::Parts {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from_static("/reports?year=2026");
    request.into_parts().0
}

pub(super) fn record<S: Store>(store: &S) -> S::Record {
    let head = request_head(Method::POST);
    store.record(&head, &Bytes::from_static(b"a request"), None)
}

pub(super) async fn accept<S: Store>(store: &S, job: &NewJob) -> CheckResult<Acceptance<S::Claim>> {
    let accepted = within("a job to be accepted", store.accept(job, record(store)));
    Ok(accepted.await??)
}

/// Accepts a job that this process runs.
pub(super) async fn claim<S: Store>(store: &S, mut job: NewJob) -> CheckResult<S::Claim> {
    job.run_here = true;
    match accept(store, &job).await? {
        Acceptance::RunHere(claim) => Ok(claim),
        other => Err(unexpected_acceptance("RunHere", &other)),
    }
}

/// Accepts a job that this process runs, without anything special.
pub(super) async fn claim_new<S: Store>(store: &S) -> CheckResult<(JobId, S::Claim)> {
    let job = NewJob::new(JobId::random());
    Ok((job.id, claim(store, job).await?))
}

#[track_caller]
pub(super) fn unexpected_acceptance<C>(expected: &str, accepted: &Acceptance<C>) -> Violation {
    let accepted = match accepted {
        Acceptance::RunHere(_) => "RunHere",
        Acceptance::Queued => "Queued",
        Acceptance::Joined(_) => "Joined",
        Acceptance::Gone => "Gone",
        Acceptance::KeyReused => "KeyReused",
        Acceptance::Full => "Full",
        Acceptance::TooLarge => "TooLarge",
    };
    Violation::new(format!(
        "accepting a job: expected {expected}, got {accepted}"
    ))
}

pub(super) async fn look_up<S: Store>(store: &S, id: JobId) -> CheckResult<Lookup> {
    Ok(within("a job to be looked up", store.get(id)).await??)
}

/// Returns a job that must be there.
pub(super) async fn found<S: Store>(store: &S, id: JobId) -> CheckResult<Snapshot> {
    let lookup = look_up(store, id).await?;
    found_by(lookup)
}

#[track_caller]
pub(super) fn found_by(lookup: Lookup) -> CheckResult<Snapshot> {
    match lookup {
        Lookup::Found(job) => Ok(*job),
        other => Err(Violation::new(format!("expected Found, got {other:?}"))),
    }
}

#[track_caller]
pub(super) fn ensure_unknown(lookup: &Lookup) -> CheckResult {
    match lookup {
        Lookup::Unknown => Ok(()),
        other => Err(Violation::new(format!("expected Unknown, got {other:?}"))),
    }
}

/// Looks at a job until it has ended.
pub(super) async fn ended<S: Store>(store: &S, id: JobId) -> CheckResult<Snapshot> {
    let looking = async {
        loop {
            let job = found(store, id).await?;
            if job.status.is_ended() {
                return Ok(job);
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    within("the job to end", looking).await?
}

/// Looks until `is_true`.
pub(super) async fn until(expected: &str, mut is_true: impl FnMut() -> bool) -> CheckResult {
    let looking = async {
        while !is_true() {
            sleep(POLL_INTERVAL).await;
        }
    };
    within(expected, looking).await
}

/// Waits until the call of a claim must stop.
pub(super) async fn canceled<S: Store>(store: &S, claim: &S::Claim) -> CheckResult {
    let canceled = poll_fn(|cx| store.poll_canceled(claim, cx));
    within("poll_canceled to complete", canceled).await
}

/// Waits until the call of a claim may begin.
pub(super) async fn begun<S: Store>(store: &S, claim: &S::Claim) -> CheckResult {
    let begun = poll_fn(|cx| store.poll_begin(claim, cx));
    within("poll_begin to complete", begun).await
}

/// Cancels a job, whatever its revision.
pub(super) async fn cancel<S: Store>(store: &S, id: JobId) -> CheckResult<Lookup> {
    let canceled = within("a cancel", store.cancel(id, &Revisions::Any)).await??;
    canceled.ok_or_else(|| Violation::new("expected a cancel without a condition to succeed"))
}

/// Deletes a job, whatever its revision.
pub(super) async fn forget<S: Store>(store: &S, id: JobId) -> CheckResult<Lookup> {
    let deleted = within("a delete", store.forget(id, &Revisions::Any)).await??;
    deleted.ok_or_else(|| Violation::new("expected a delete without a condition to succeed"))
}

pub(super) async fn finish<S: Store>(
    store: &S,
    claim: &S::Claim,
    end: End<S::Writer>,
) -> CheckResult<Finished> {
    Ok(within("a job to be ended", store.finish(claim, end)).await??)
}

/// Ends a job with a short response.
pub(super) async fn finish_with<S: Store>(
    store: &S,
    claim: &S::Claim,
    text: &'static str,
) -> CheckResult<Finished> {
    let mut writer = store.respond(claim, Response::new(()).into_parts().0, None);
    write(&mut writer, Bytes::from_static(text.as_bytes())).await?;
    finish(store, claim, End::new(Outcome::Response(writer))).await
}

pub(super) async fn finish_without<S: Store>(
    store: &S,
    claim: &S::Claim,
    code: ErrorCode,
) -> CheckResult<Finished> {
    finish(store, claim, End::new(Outcome::NoResponse(code))).await
}

/// Waits for room. Flushes while there is none, as the layer does.
pub(super) async fn room<W: Writer>(
    writer: &mut W,
    bytes: usize,
) -> CheckResult<Result<(), NoRoom>> {
    let room = poll_fn(|cx| {
        let room = writer.poll_room(bytes, cx);
        if room.is_pending() {
            writer.flush();
        }
        room
    });
    within("an answer of poll_room", room).await
}

/// Waits for room, and appends data.
pub(super) async fn write<W: Writer>(writer: &mut W, data: Bytes) -> CheckResult {
    room(writer, data.len()).await??;
    writer.push(data);
    Ok(())
}

/// Returns the head of a response with every kind of header value.
pub(super) fn response_head() -> response::Parts {
    let mut head = Response::new(()).into_parts().0;
    head.status = StatusCode::IM_A_TEAPOT;
    let text = HeaderValue::from_static("text/plain");
    head.headers.insert(http::header::CONTENT_TYPE, text);
    let delay = HeaderValue::from_static("120");
    head.headers.insert(http::header::RETRY_AFTER, delay);
    for value in header_values() {
        head.headers.append("x-any", value);
    }
    head
}

pub(super) fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for value in header_values() {
        trailers.append("x-sum", value);
    }
    trailers
}

/// Fails unless a response has the head of [`response_head`].
pub(super) fn ensure_response_head(actual: &response::Parts) -> CheckResult {
    let expected = response_head();
    ensure_eq("status of the response", actual.status, expected.status)?;
    ensure_same_fields(
        "headers of the response",
        &actual.headers,
        &expected.headers,
    )
}

/// Fails unless both maps have the same values, in the same order and with the same sensitivity.
pub(super) fn ensure_same_fields(
    what: &str,
    actual: &HeaderMap,
    expected: &HeaderMap,
) -> CheckResult {
    ensure_eq(what, actual, expected)?;
    for name in expected.keys() {
        let values = |fields: &HeaderMap| -> Vec<bool> {
            let values = fields.get_all(name).iter();
            values.map(HeaderValue::is_sensitive).collect()
        };
        let what = format!("sensitivity of the values of {name} in the {what}");
        ensure_eq(&what, values(actual), values(expected))?;
    }
    Ok(())
}

/// A response that has been read to its end.
pub(super) struct ReadResponse {
    pub(super) run: u32,
    pub(super) available: u64,
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

/// Reads the response of an ended job, from byte `from` on.
pub(super) async fn read<S: Store>(
    store: &S,
    id: JobId,
    from: u64,
) -> CheckResult<Option<ReadResponse>> {
    let reading = within("a result to be read", store.read(id, from)).await??;
    match reading {
        Some(reading) => Ok(Some(read_to_end(reading).await?)),
        None => Ok(None),
    }
}

pub(super) async fn read_to_end(reading: Reading) -> CheckResult<ReadResponse> {
    let (run, available) = (reading.run, reading.available);
    let (head, body) = reading.response.into_parts();
    let body = within("the body of a result", body.collect()).await?;
    let body = body.map_err(|error| Violation::new(format!("the body failed: {error}")))?;
    Ok(ReadResponse {
        run,
        available,
        head,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    })
}

/// Fails unless both bodies are equal. The message has their lengths, since they may be large.
#[track_caller]
pub(super) fn ensure_same_body(actual: &[u8], expected: &[u8]) -> CheckResult {
    if actual == expected {
        return Ok(());
    }
    let mut pairs = actual.iter().zip(expected);
    let same = pairs.position(|(one, other)| one != other);
    let same = same.unwrap_or_else(|| actual.len().min(expected.len()));
    let (actual, expected) = (actual.len(), expected.len());
    Err(Violation::new(format!(
        "body: expected {expected} bytes, got {actual}, which differ from byte {same} on"
    )))
}

/// Fails unless the job has a response that can be read.
pub(super) fn ensure_result(read: Option<ReadResponse>) -> CheckResult<ReadResponse> {
    ensure(read.is_some(), "the job to have a result")?;
    read.ok_or_else(|| Violation::new("expected a result"))
}
