//! Turns a call into a job: the one road for every request that becomes one.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tower_service::Service;
use tracing::Instrument;

#[cfg(feature = "webhook")]
use super::callbacks::follow;
use super::{
    candidate::{Candidate, ReadRequest, RequestNotes},
    submitted::submitted,
};
use crate::{
    config::Backpressure,
    estimate::RETRY_AFTER_WHEN_FULL,
    job::{JobId, Snapshot},
    limit::Permit,
    monitor::{self, ResultRead},
    problem::{Problem, log_store_error},
    protocol::IDEMPOTENT_REPLAYED,
    registry::Registry,
    run::{Call, InnerService, Job, Outlets, RelayReader, RelayWriter, RequestBody, Run, relay},
    store::{Acceptance, Lookup, NewJob, ResultBody, Store},
    telemetry,
};

/// The result of admitting a request.
pub(super) enum Admission<S: Service<Request<RequestBody<B>>>, B> {
    /// The request has a job, and this is its response.
    Accepted(Response<ResultBody>),
    /// The request has no job; the call may still run inline, with a permit if it counts.
    Refused(Response<ResultBody>, Call<S, B>, Option<Permit>),
    /// The store, or the job's response, is awaited.
    Pending(PendingAdmission<S, B>),
}

pub(super) type PendingAdmission<S, B> = Pin<Box<dyn Future<Output = Admission<S, B>> + Send>>;

/// A request whose job is in the store, so that its 202 may be sent.
enum Stored<C> {
    /// The job is new. The claim is present if it runs here.
    New(Option<C>),
    /// The job belongs to an earlier request with the same key.
    Joined(Box<Snapshot>),
}

/// Admits a request as of `now`: stores its job, and runs it in the background.
///
/// A call that has started moves to the background. A request with a key is a job before its call
/// starts, even if it may be answered inline: its response is kept for repeats.
pub(super) fn admit<S, B, St>(
    mut candidate: Candidate<St>,
    read: ReadRequest<St>,
    call: Call<S, B>,
    now: Instant,
    cx: &mut Context<'_>,
) -> Admission<S, B>
where
    S: InnerService<B>,
    B: Send + 'static,
    St: Store,
{
    let new = match candidate.new_job(&read, &call, now) {
        Ok(new) => new,
        Err(error) => {
            let refusal = Problem::from(error).counted().response();
            return Admission::Refused(refusal, call, candidate.take_inline_permit());
        }
    };
    let ReadRequest { record, notes, .. } = read;
    let mut accepting = candidate.registry.store.accept(&new, record);
    // Polled in place: a store in memory needs no box.
    if let Poll::Ready(accepted) = Pin::new(&mut accepting).poll(cx) {
        return conclude(candidate, notes, &new, accepted, call, now);
    }
    Admission::Pending(Box::pin(async move {
        // If this is dropped, the call is dropped before the candidate's permit.
        let candidate = candidate;
        let call = call;
        let accepted = accepting.await;
        conclude(candidate, notes, &new, accepted, call, Instant::now())
    }))
}

/// Admits a request whose client has disconnected. If the job is refused, the call is dropped.
pub(super) fn admit_in_background<S, B, St>(
    candidate: Candidate<St>,
    read: ReadRequest<St>,
    call: Call<S, B>,
) where
    S: InnerService<B>,
    B: Send + 'static,
    St: Store,
{
    // Without a runtime, nothing can go on.
    if Handle::try_current().is_err() {
        return;
    }
    let mut cx = Context::from_waker(Waker::noop());
    let admission = admit(candidate, read, call, Instant::now(), &mut cx);
    if let Admission::Pending(pending) = admission {
        finish_in_background(pending);
    }
}

/// Awaits an admission whose client has disconnected.
///
/// The task ends with the store's decision. It has the candidate's permit, so a drain waits for it.
pub(super) fn finish_in_background<S, B>(pending: PendingAdmission<S, B>)
where
    S: Service<Request<RequestBody<B>>> + 'static,
    B: 'static,
{
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async { drop(pending.await) }.in_current_span());
    }
}

/// Answers a request that the store has decided about, and starts its call if it runs here.
fn conclude<S, B, St>(
    mut candidate: Candidate<St>,
    notes: Option<Box<RequestNotes>>,
    new: &NewJob,
    accepted: Result<Acceptance<St::Claim>, St::Error>,
    mut call: Call<S, B>,
    now: Instant,
) -> Admission<S, B>
where
    S: InnerService<B>,
    B: Send + 'static,
    St: Store,
{
    let stored = match stored(&candidate, new, accepted) {
        Ok(stored) => stored,
        Err(refusal) => {
            return Admission::Refused(refusal, call, candidate.take_inline_permit());
        }
    };
    let is_joined = matches!(stored, Stored::Joined(_));
    let limit = candidate.response_limit(new.key.is_some());
    let (job, running, relayed) = match stored {
        Stored::Joined(job) if candidate.options.idempotency.strict && !job.status.is_ended() => {
            let registry = &candidate.registry;
            let seconds = registry.limit_retry_after(RETRY_AFTER_WHEN_FULL);
            registry.record_shown(&job, seconds);
            let mut in_use = Problem::KeyInUse.counted().response();
            registry.hasten(&mut in_use);
            return Admission::Accepted(in_use);
        }
        Stored::Joined(job) => {
            telemetry::joined();
            // The receivers are those of the first request.
            candidate.prefer.callback = None;
            (*job, None, None)
        }
        Stored::New(claim) => {
            let (writer, relayed) = if limit.is_some() && claim.is_some() {
                let (writer, reader) = relay();
                (Some(writer), Some(reader))
            } else {
                (None, None)
            };
            let running = claim.map(|claim| {
                // From now on the claim holds the charge of the request.
                call.hold(None);
                call.unshare_body();
                start(&mut candidate, call, notes.as_deref(), new, claim, writer)
            });
            (new.snapshot_at(now), running, relayed)
        }
    };
    // A job that runs here has the permit by now; any other needs none.
    candidate.permit = None;
    let path = notes.and_then(|notes| notes.path);
    let Some(limit) = limit else {
        if let Some(running) = running {
            tokio::spawn(running);
        }
        let response = candidate.accepted(path.as_deref(), &job);
        return Admission::Accepted(mark_joined(response, is_joined));
    };
    // The caller polls this in the same poll, so the call is not dropped before it is spawned.
    Admission::Pending(Box::pin(async move {
        if let Some(mut running) = running {
            // Polled once before it is spawned: what is ready at once is answered inline.
            let first = poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await;
            if first.is_pending() {
                tokio::spawn(running);
            }
        }
        let path = path.as_deref();
        let response = match relayed {
            Some(relayed) => submitted_or_accepted(&candidate, path, job, limit, relayed).await,
            None => joined_or_accepted(&candidate, path, job, limit).await,
        };
        Admission::Accepted(mark_joined(response, is_joined))
    }))
}

/// Returns the job that the store has for a request, or the response that refuses the request.
fn stored<St: Store>(
    candidate: &Candidate<St>,
    new: &NewJob,
    accepted: Result<Acceptance<St::Claim>, St::Error>,
) -> Result<Stored<St::Claim>, Response<ResultBody>> {
    let problem = match accepted {
        Ok(Acceptance::RunHere(claim)) => {
            log_accepted(new);
            return Ok(Stored::New(Some(claim)));
        }
        Ok(Acceptance::Queued) => {
            log_accepted(new);
            return Ok(Stored::New(None));
        }
        Ok(Acceptance::Joined(job)) => return Ok(Stored::Joined(job)),
        Ok(Acceptance::Gone) => {
            let gone = Problem::Gone.counted().response();
            return Err(mark_joined(gone, true));
        }
        Ok(Acceptance::KeyReused) => Problem::KeyReused,
        Ok(Acceptance::TooLarge) => Problem::FieldsTooLarge,
        Ok(Acceptance::Full) => match candidate.denied {
            Some(error) => Problem::from(error),
            // It had a permit until a drain began.
            None if new.join_only => Problem::Draining,
            None => Problem::Full,
        },
        Err(error) => {
            log_store_error(&error);
            Problem::StoreUnavailable
        }
    };
    let mut refusal = problem.counted().response();
    candidate.registry.hasten(&mut refusal);
    Err(refusal)
}

/// Logs and counts a request that has become a job, in the span of the request.
fn log_accepted(new: &NewJob) {
    tracing::info!(id = %new.id, "request accepted");
    telemetry::accepted();
}

/// Turns a call into a job that runs here. Returns its future, which the caller spawns.
fn start<S, B, St>(
    candidate: &mut Candidate<St>,
    call: Call<S, B>,
    notes: Option<&RequestNotes>,
    new: &NewJob,
    claim: St::Claim,
    relay: Option<RelayWriter>,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: InnerService<B>,
    B: Send + 'static,
    St: Store,
{
    let (method, kind) = (&candidate.method, new.kind.as_str());
    // A call that has started has the head.
    let head = call.head();
    let head = head.or_else(|| notes.and_then(|notes| notes.head.as_ref()));
    let span = candidate.options.spans.make(head, new.id, method, kind);
    let job = Job {
        registry: candidate.registry.clone(),
        created: new.created,
        created_at: new.created_at,
        limited_from: new.created,
        is_head: candidate.method == Method::HEAD,
        is_owned: new.owner.is_some(),
        outcomes: candidate.options.idempotency.outcomes,
        kind: new.kind.clone(),
        claim,
        _permit: candidate.permit.take().map(Permit::into_job),
    };
    let pace = match candidate.options.backpressure {
        Backpressure::Off => None,
        Backpressure::Ahead(bytes) => Some(candidate.registry.paces.limit(new.id, bytes)),
    };
    let has_outlets = relay.is_some() || pace.is_some();
    #[cfg(feature = "webhook")]
    follow(&job.registry, new);
    let outlets = has_outlets.then(|| Box::new(Outlets { relay, pace }));
    let run = Run::new(call, new.id, job, outlets);
    // Boxed, which keeps the runtime's record of the task small.
    if span.is_disabled() {
        Box::pin(run)
    } else {
        Box::pin(run.instrument(span))
    }
}

/// Returns the response of a new job if its head is there within `limit`, else the 202.
async fn submitted_or_accepted<St: Store>(
    candidate: &Candidate<St>,
    path: Option<&str>,
    job: Snapshot,
    limit: Option<Duration>,
    relayed: RelayReader,
) -> Response<ResultBody> {
    let registry = &candidate.registry;
    let head = poll_fn(|cx| relayed.poll_head(cx));
    let head = match limit {
        Some(limit) => timeout(limit, head).await,
        None => Ok(head.await),
    };
    match head {
        Ok(Some((head, hint))) => {
            let response = submitted(registry, job.id, relayed, head, &hint);
            let read = ResultRead::new(registry, job.id);
            let response = response.map(|body| monitor::live(body, None, read));
            let mut response = monitor::watched(response, &registry.settings);
            candidate.mark_submitted(path, job.id, &mut response);
            response
        }
        // It has ended without a response, and a joiner gets the same problem.
        Ok(None) => joined_or_accepted(candidate, path, job, limit).await,
        Err(_) => accepted_now(candidate, path, job.id).await,
    }
}

/// Returns the response of a job that a request joined if its head is there within `limit`, else
/// the 202.
async fn joined_or_accepted<St: Store>(
    candidate: &Candidate<St>,
    path: Option<&str>,
    job: Snapshot,
    limit: Option<Duration>,
) -> Response<ResultBody> {
    let response = monitor::joined_response(&candidate.registry, job.id);
    let response = match limit {
        Some(limit) => timeout(limit, response).await,
        None => Ok(response.await),
    };
    match response {
        Ok(Ok(mut response)) => {
            candidate.mark_submitted(path, job.id, &mut response);
            response
        }
        Ok(Err(error)) => store_unavailable(&candidate.registry, &error),
        Err(_) => accepted_now(candidate, path, job.id).await,
    }
}

/// Returns the 202 for a job as it is now.
async fn accepted_now<St: Store>(
    candidate: &Candidate<St>,
    path: Option<&str>,
    id: JobId,
) -> Response<ResultBody> {
    match candidate.registry.store.get(id).await {
        Ok(Lookup::Found(job)) => candidate.accepted(path, &job),
        Ok(Lookup::Gone(_) | Lookup::Unknown) => Problem::Gone.response(),
        Err(error) => store_unavailable(&candidate.registry, &error),
    }
}

fn store_unavailable<St>(
    registry: &Registry<St>,
    error: &(dyn Error + 'static),
) -> Response<ResultBody> {
    log_store_error(error);
    let mut refusal = Problem::StoreUnavailable.response();
    registry.hasten(&mut refusal);
    refusal
}

fn mark_joined(mut response: Response<ResultBody>, is_joined: bool) -> Response<ResultBody> {
    if is_joined {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    }
    response
}
