//! Fetches requests from the queue, and turns a delivered request into work.

use std::{sync::Arc, time::Duration};

use async_nats::{
    connection::State,
    jetstream::{
        AckKind, Message,
        consumer::pull::{Batch, BatchError},
        message::Acker,
    },
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, request::Parts};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use super::{
    active::{ActiveClaim, QueueHold},
    attempt::{ClaimAttempt, ClaimDecision},
    chunks,
    claim::NatsClaim,
    clock::{from_unix_millis, instant_at},
    envelope::decode,
    error::NatsError,
    jetstream::JetStream,
    names::ResourceNames,
    process::ProcessState,
    record::JobRecord,
    request::QueuedRequest,
};
use crate::{
    JobId, Kind,
    store::{BufferedBody, Purpose, Work, fields_price, request_price},
};

/// The time that a pull waits at the server. A worker that shuts down waits as long for its last
/// pull.
///
/// A worker must not abandon a pull: nats-server 2.9 delivers a requeued message to it in vain.
const PULL_EXPIRY: Duration = Duration::from_secs(2);

/// The time that the server's answer may take beyond the expiry of a pull.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The delay before the next attempt to reserve memory.
const BUDGET_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A request that the queue has delivered to this process.
///
/// Dropping it requeues the request at once, if the delivery is recent. Otherwise the queue
/// delivers it again when its lease expires.
#[derive(Debug)]
pub struct NatsTicket {
    /// `None` once it is claimed.
    message: Option<Message>,
    delivered_at: Instant,
    /// The ack deadline: until then, the queue delivers the message to no other process.
    lease: Duration,
}

impl Drop for NatsTicket {
    fn drop(&mut self) {
        // Without a runtime the lease has to expire.
        let (Some(message), Ok(runtime)) = (self.message.take(), Handle::try_current()) else {
            return;
        };
        // A late negative acknowledgement would requeue the delivery to another process.
        let is_connected = message.context.client().connection_state() == State::Connected;
        if !is_connected || self.delivered_at.elapsed() >= self.lease / 2 {
            return;
        }
        // Bounded, since sending waits for room in the connection's buffer.
        runtime.spawn(timeout(ANSWER_TIMEOUT, async move {
            if message.ack_with(AckKind::Nak(None)).await.is_ok() {
                let _ = message.context.client().flush().await;
            }
        }));
    }
}

/// A decoded request.
struct DeliveredRequest {
    id: JobId,
    /// The record that the request implies.
    queued: JobRecord,
    may_rerun: bool,
    begun_here: bool,
    head: Parts,
    trailers: Option<HeaderMap>,
    /// The body within the message; empty if the body is in chunks.
    inline_body: Bytes,
}

/// Waits for requests, and takes up to `max` of those that are available.
pub(super) async fn next(jetstream: &JetStream, max: usize) -> Result<Vec<NatsTicket>, NatsError> {
    let workers = &jetstream.streams.workers;
    // Take what is there, or else wait for one request.
    let fetch = workers.fetch().max_messages(max).messages().await;
    let mut tickets = Vec::new();
    collect(jetstream, fetch, ANSWER_TIMEOUT, &mut tickets).await?;
    if tickets.is_empty() {
        let pull = workers.batch().max_messages(1).expires(PULL_EXPIRY);
        let pull = pull.messages().await;
        let limit = PULL_EXPIRY + ANSWER_TIMEOUT;
        collect(jetstream, pull, limit, &mut tickets).await?;
    }
    Ok(tickets)
}

async fn collect(
    jetstream: &JetStream,
    batch: Result<Batch, BatchError>,
    limit: Duration,
    tickets: &mut Vec<NatsTicket>,
) -> Result<(), NatsError> {
    let mut batch = batch.map_err(NatsError::unavailable)?;
    let collecting = async {
        while let Some(message) = batch.next().await {
            match message {
                Ok(message) => tickets.push(NatsTicket {
                    message: Some(message),
                    delivered_at: Instant::now(),
                    lease: jetstream.options.lease,
                }),
                // Return the requests that came before the error, or their leases would expire.
                Err(_) if !tickets.is_empty() => break,
                Err(error) => return Err(NatsError::Unavailable(error)),
            }
        }
        Ok(())
    };
    // A timeout means that the leader has changed and the new one does not know this pull.
    timeout(limit, collecting).await.unwrap_or(Ok(()))
}

/// Claims a delivered request. Returns `None` if it should not run now.
///
/// Everything that the call needs is read before the claim is written. So a failure up to then
/// leaves the request in the queue. Once a claim may be written, this waits for its outcome, for at
/// most half of the retention.
pub(super) async fn claim(
    process: &ProcessState,
    mut ticket: NatsTicket,
) -> Result<Option<Work<NatsClaim>>, NatsError> {
    let jetstream = &process.jetstream;
    let Some(message) = ticket.message.take() else {
        return Ok(None);
    };
    let info = message.info().map_err(NatsError::Unavailable)?;
    let (deliveries, queue_sequence) = (info.delivered, info.stream_sequence);
    let (message, acker) = message.split();
    let acker = Arc::new(acker);
    let request = match DeliveredRequest::decode(jetstream, &message.subject, message.payload) {
        Ok(request) => request,
        Err(error) => {
            // A newer version may have written it, and a worker of that version may get it next.
            requeue(jetstream, &acker, jetstream.options.lease).await?;
            return Err(error);
        }
    };
    let (id, queued) = (request.id, &request.queued);
    let body_chunks = queued.details.body_chunks;
    let body = match body_chunks {
        None => request.inline_body.len(),
        Some(count) => count as usize * chunks::MAX_CHUNK_BYTES,
    };
    let trailers = request.trailers.as_ref().map_or(0, fields_price);
    let bytes = body + request_price(&request.head) + trailers;
    let bytes = bytes.min(jetstream.budget.share(Purpose::Accepted));
    let reserve = || jetstream.budget.reserve(bytes, Purpose::Accepted);
    let mut charge = reserve();
    // Wait for a while, since running calls may end soon. Then let another process try.
    while charge.is_none() {
        if ticket.delivered_at.elapsed() > jetstream.options.lease / 4 {
            requeue(jetstream, &acker, Duration::ZERO).await?;
            return Ok(None);
        }
        sleep(BUDGET_RETRY_DELAY).await;
        charge = reserve();
    }
    // Register the claim before it is visible to others, so that the watch misses no write.
    let hold = QueueHold::Acker(acker.clone());
    let (claim, record) = (rand::random(), queued.clone());
    let now = Instant::now();
    let active = ActiveClaim::new(id, claim, hold, request.may_rerun, record, 0, now);
    let claim = NatsClaim::new(&process.claims, active);
    let attempt = ClaimAttempt {
        jetstream,
        active: &claim.active,
        queued,
        queue_sequence,
        begun_here: request.begun_here,
        deliveries,
        delivered_at: ticket.delivered_at,
    };
    let body = match attempt.decide(request.inline_body).await {
        Ok(ClaimDecision::Run(body)) => {
            if claim.active.state.lock().is_behind() {
                // Bring the run record up to date while the call runs.
                process.claims.write_requested.notify_one();
            }
            body
        }
        Ok(ClaimDecision::Later(delay)) => {
            requeue(jetstream, &acker, delay).await?;
            return Ok(None);
        }
        Ok(ClaimDecision::Ended(record)) => {
            jetstream.clean_up(id, &record).await?;
            acknowledge(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
        Ok(ClaimDecision::Duplicate) => {
            acknowledge(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
        Err(error) => {
            requeue(jetstream, &acker, Duration::ZERO).await?;
            return Err(error);
        }
    };
    // No await from here on: if this future were dropped now, nothing would release the claim.
    let body = BufferedBody {
        charge,
        bytes: body,
        trailers: request.trailers.map(Box::new),
    };
    let details = &queued.details;
    let attempt = claim.active.state.lock().record.attempts;
    let mut work = Work::new(claim, id, request.head, body);
    work.created = instant_at(details.created_at);
    work.created_at = from_unix_millis(details.created_at);
    work.kind = Kind::new(&details.kind);
    work.is_owned = details.owner.is_some();
    work.callbacks = details.callbacks.as_deref().map(Arc::from);
    work.outcomes = details.outcomes;
    work.attempt = attempt;
    Ok(Some(work))
}

impl DeliveredRequest {
    fn decode(jetstream: &JetStream, subject: &str, payload: Bytes) -> Result<Self, NatsError> {
        let Some(id) = ResourceNames::job_id(subject) else {
            return Err(NatsError::unreadable(subject, "the subject has no job id"));
        };
        let (request, inline_body) = decode::<QueuedRequest>(subject, payload)?;
        let options = &jetstream.options;
        let queued = JobRecord::queued(&request);
        let (may_rerun, begun_here) = (request.may_rerun(options), request.begun_here);
        let head = request.into_head(options);
        let (head, trailers) = head.map_err(|error| NatsError::unreadable(subject, error))?;
        Ok(Self {
            id,
            queued,
            may_rerun,
            begun_here,
            head,
            trailers,
            inline_body,
        })
    }
}

/// Requeues a message after a delay of at least half a lease.
///
/// However late the server gets this, it applies it to the current delivery, which may be another
/// process's. The delay gives that process the time to extend its deadline.
async fn requeue(jetstream: &JetStream, acker: &Acker, delay: Duration) -> Result<(), NatsError> {
    let delay = delay.max(jetstream.options.lease / 2);
    acknowledge(acker, AckKind::Nak(Some(delay))).await
}

async fn acknowledge(acker: &Acker, kind: AckKind) -> Result<(), NatsError> {
    let sent = acker.ack_with(kind).await;
    sent.map_err(NatsError::unavailable)
}
