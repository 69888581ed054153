//! Checks of queues.

use bytes::Bytes;
use http::{HeaderMap, Method, request};
use tokio::time::Instant;

use super::{
    fixtures::{
        begun, bytes, cancel, claim_new, ended, ensure_result, ensure_same_body,
        ensure_same_fields, finish, finish_with, finish_without, found, header_values, read,
        read_to_end, request_head, response_head, trailers, unexpected_acceptance, write,
    },
    violation::{CheckResult, ensure, ensure_eq, ensure_same_millisecond, within},
    writing::{read_early, read_to_break},
};
use crate::{
    estimate::Kind,
    job::{ErrorCode, JobId, Owner, Progress, Status},
    store::{
        Acceptance, CallbackTarget, End, Finished, NewJob, News, Outcome, Queue, Report, Work,
        Writer,
    },
};

/// The number of requests that a check takes at a time.
const MAX_TICKETS: usize = 8;

async fn enqueue<S: Queue>(
    store: &S,
    job: &NewJob,
    head: &request::Parts,
    body: &Bytes,
    trailers: Option<&HeaderMap>,
) -> CheckResult {
    let record = store.record(head, body, trailers);
    match within("a job to be accepted", store.accept(job, record)).await?? {
        Acceptance::Queued => Ok(()),
        // A store may give each request to the process that accepts it. This process hands it back.
        Acceptance::RunHere(claim) => {
            drop(claim);
            Ok(())
        }
        other => Err(unexpected_acceptance("Queued", &other)),
    }
}

/// Enqueues a short request that may run again.
async fn enqueue_new<S: Queue>(store: &S, method: Method) -> CheckResult<JobId> {
    let job = NewJob::new(JobId::random());
    let body = Bytes::from_static(b"a request");
    enqueue(store, &job, &request_head(method), &body, None).await?;
    Ok(job.id)
}

async fn next<S: Queue>(store: &S) -> CheckResult<Vec<S::Ticket>> {
    let tickets = within("an answer of next", store.next(MAX_TICKETS)).await??;
    ensure(
        tickets.len() <= MAX_TICKETS,
        "at most as many tickets as wanted",
    )?;
    Ok(tickets)
}

/// Waits for the request of a job, and claims it.
async fn claim_next<S: Queue>(store: &S, id: JobId) -> CheckResult<Work<S::Claim>> {
    let claiming = async {
        loop {
            for ticket in next(store).await? {
                if let Some(work) = store.claim(ticket).await? {
                    ensure_eq("id", work.id, id)?;
                    return Ok(work);
                }
            }
        }
    };
    within("the request to be delivered and claimed", claiming).await?
}

/// Fails if a request can be claimed now.
async fn ensure_nothing_to_run<S: Queue>(store: &S, expected: &str) -> CheckResult {
    for ticket in next(store).await? {
        let work = within("an answer of claim", store.claim(ticket)).await??;
        ensure(work.is_none(), expected)?;
    }
    Ok(())
}

pub(super) async fn request_comes_back_as_it_was<S: Queue>(store: S) -> CheckResult {
    let mut job = NewJob::new(JobId::random());
    job.kind = Kind::new("PUT /reports");
    job.owner = Some(Owner::new("me"));
    let mut head = request_head(Method::PUT);
    for value in header_values() {
        head.headers.append("x-any", value);
    }
    let body = Bytes::from_static(b"\0any \xff bytes\r\n");
    enqueue(&store, &job, &head, &body, Some(&trailers())).await?;

    let work = claim_next(&store, job.id).await?;
    ensure_eq("attempt", work.attempt, 1)?;
    ensure_eq("kind", &work.kind, &job.kind)?;
    ensure(work.is_owned, "the job to have an owner")?;
    ensure_same_millisecond("created_at", Some(work.created_at), job.created_at)?;
    ensure_eq("method", &work.head.method, &head.method)?;
    ensure_eq("URI", &work.head.uri, &head.uri)?;
    ensure_eq("version", work.head.version, head.version)?;
    ensure_same_fields("headers of the request", &work.head.headers, &head.headers)?;
    ensure_same_body(&work.body.bytes, &body)?;
    let actual = work.body.trailers.as_deref().cloned().unwrap_or_default();
    ensure_same_fields("trailers of the request", &actual, &trailers())
}

pub(super) async fn large_request_comes_back_as_it_was<S: Queue>(store: S) -> CheckResult {
    let job = NewJob::new(JobId::random());
    let body = bytes(3_000_001);
    enqueue(&store, &job, &request_head(Method::POST), &body, None).await?;
    let work = claim_next(&store, job.id).await?;
    ensure_same_body(&work.body.bytes, &body)?;
    finish_with(&store, &work.claim, "done").await.map(drop)
}

pub(super) async fn claimed_request_ends_its_job<S: Queue>(store: S) -> CheckResult {
    let id = enqueue_new(&store, Method::POST).await?;
    ensure_eq("status", found(&store, id).await?.status, Status::Queued)?;
    let work = claim_next(&store, id).await?;
    let finished = finish_with(&store, &work.claim, "done").await?;
    ensure_eq("the first end", finished, Finished::First)?;
    drop(work);
    let job = found(&store, id).await?;
    ensure_eq("status", job.status, Status::Succeeded)?;
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_same_body(&result.body, b"done")?;
    ensure_nothing_to_run(&store, "the request of an ended job not to run").await
}

pub(super) async fn request_runs_under_one_claim<S: Queue>(store: S) -> CheckResult {
    let id = enqueue_new(&store, Method::PUT).await?;
    let work = claim_next(&store, id).await?;
    ensure_nothing_to_run(&store, "a claimed request not to be claimed again").await?;
    let finished = finish_with(&store, &work.claim, "done").await?;
    ensure_eq("the first end", finished, Finished::First)
}

pub(super) async fn job_that_runs_here_is_not_delivered<S: Queue>(store: S) -> CheckResult {
    let (_, claim) = claim_new(&store).await?;
    ensure_nothing_to_run(&store, "a job that runs here not to be claimed").await?;
    let finished = finish_with(&store, &claim, "done").await?;
    ensure_eq("the first end", finished, Finished::First)
}

pub(super) async fn canceled_request_is_not_run<S: Queue>(store: S) -> CheckResult {
    let id = enqueue_new(&store, Method::POST).await?;
    cancel(&store, id).await?;
    let job = found(&store, id).await?;
    ensure_eq("status", job.status, Status::Canceled)?;
    ensure_nothing_to_run(&store, "a canceled request not to be claimed").await
}

pub(super) async fn dropped_ticket_is_delivered_again<S: Queue>(store: S) -> CheckResult {
    let id = enqueue_new(&store, Method::POST).await?;
    let delivering = async {
        loop {
            if let Some(ticket) = next(&store).await?.pop() {
                return CheckResult::Ok(ticket);
            }
        }
    };
    drop(within("the request to be delivered", delivering).await??);
    let work = claim_next(&store, id).await?;
    ensure_eq("attempt", work.attempt, 1)?;
    finish_with(&store, &work.claim, "done").await.map(drop)
}

pub(super) async fn dropped_claim_is_delivered_again<S: Queue>(store: S) -> CheckResult {
    // A request that may run again.
    let id = enqueue_new(&store, Method::PUT).await?;
    let work = claim_next(&store, id).await?;
    begun(&store, &work.claim).await?;
    drop(work);
    let work = claim_next(&store, id).await?;
    ensure_eq("attempt", work.attempt, 2)?;
    let finished = finish_with(&store, &work.claim, "done").await?;
    ensure_eq("the first end", finished, Finished::First)?;
    let job = ended(&store, id).await?;
    ensure_eq("status", job.status, Status::Succeeded)
}

pub(super) async fn unstarted_call_is_handed_back<S: Queue>(store: S) -> CheckResult {
    // A request that may not run twice, and has not run yet.
    let id = enqueue_new(&store, Method::POST).await?;
    let work = claim_next(&store, id).await?;
    let finished = finish_without(&store, &work.claim, ErrorCode::Shutdown).await?;
    ensure_eq("the end at a shutdown", finished, Finished::HandedBack)?;
    drop(work);
    ensure(
        !found(&store, id).await?.status.is_ended(),
        "the job not to end",
    )?;
    let work = claim_next(&store, id).await?;
    ensure_eq("body", &work.body.bytes[..], b"a request")?;
    let finished = finish_with(&store, &work.claim, "done").await?;
    ensure_eq("the first end", finished, Finished::First)
}

pub(super) async fn work_has_the_receivers_of_its_job<S: Queue>(store: S) -> CheckResult {
    let mut job = NewJob::new(JobId::random());
    let target = CallbackTarget::new("https://one.example/", ["job.started".to_owned()]);
    job.callbacks = Some([target].into());
    let head = request_head(Method::POST);
    enqueue(&store, &job, &head, &Bytes::new(), None).await?;
    let work = claim_next(&store, job.id).await?;
    let expected = job.callbacks.filter(|_| store.outbox().is_some());
    ensure_eq("callbacks", work.callbacks, expected)
}

pub(super) async fn started_call_is_handed_back<S: Queue>(store: S) -> CheckResult {
    // A request that may run again.
    let id = enqueue_new(&store, Method::PUT).await?;
    let work = claim_next(&store, id).await?;
    begun(&store, &work.claim).await?;
    let started = Instant::now();
    let report = Report::new(News::Started(started));
    within("a report", store.report(&work.claim, report)).await??;
    let progress = Progress {
        fraction: Some(0.5),
        message: Some("half".into()),
        ..Progress::default()
    };
    let report = Report::new(News::Progress(progress));
    within("a report", store.report(&work.claim, report)).await??;
    let mut end = End::new(Outcome::NoResponse(ErrorCode::Shutdown));
    end.started = Some(started);
    let finished = finish(&store, &work.claim, end).await?;
    ensure_eq("the end at a shutdown", finished, Finished::HandedBack)?;
    drop(work);

    let work = claim_next(&store, id).await?;
    ensure_eq("attempt", work.attempt, 2)?;
    let progress = found(&store, id).await?.progress;
    ensure_eq("progress of the second call", progress, Progress::default())?;
    let writer = store.respond(&work.claim, http::Response::new(()).into_parts().0, None);
    let mut end = End::new(Outcome::Response(writer));
    end.started = Some(Instant::now());
    let finished = finish(&store, &work.claim, end).await?;
    ensure_eq("the first end", finished, Finished::First)?;
    let job = found(&store, id).await?;
    ensure_eq("attempt of the ended job", job.attempt, 2)?;
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_eq("run", result.run, 2)
}

pub(super) async fn second_call_continues_no_response<S: Queue>(store: S) -> CheckResult {
    let id = enqueue_new(&store, Method::PUT).await?;
    let work = claim_next(&store, id).await?;
    begun(&store, &work.claim).await?;
    let mut writer = store.respond(&work.claim, response_head(), None);
    write(&mut writer, Bytes::from_static(b"of the first call")).await?;
    writer.flush();
    let early = read_early(&store, id, 0).await?;
    drop(writer);
    drop(work);

    let work = claim_next(&store, id).await?;
    ensure_eq("attempt", work.attempt, 2)?;
    begun(&store, &work.claim).await?;
    let second = bytes(70_000);
    let mut writer = store.respond(&work.claim, response_head(), None);
    write(&mut writer, second.clone()).await?;
    writer.flush();
    let later = read_early(&store, id, 3).await?;
    if let Some(early) = early {
        ensure_eq("run of the first reader", early.run, 1)?;
        let part = read_to_break(early.response.into_body()).await?;
        ensure(
            b"of the first call".starts_with(&part),
            "the first reader to get bytes of the first call alone",
        )?;
    }
    finish(&store, &work.claim, End::new(Outcome::Response(writer))).await?;
    if let Some(later) = later {
        ensure_eq("run of the second reader", later.run, 2)?;
        ensure_same_body(&read_to_end(later).await?.body, &second[3..])?;
    }
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_eq("run", result.run, 2)?;
    ensure_same_body(&result.body, &second)
}
