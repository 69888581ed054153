//! How a request leaves the queue.

use std::{sync::Arc, time::Duration};

use async_nats::{
    connection::State,
    jetstream::{AckKind, Message, message::Acker},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, request::Parts};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use super::{
    NatsError,
    active::{ActiveClaim, Delivery, NatsClaim},
    attempt::{ClaimAttempt, ClaimDecision},
    chunks,
    clock::{instant, time},
    envelope::open,
    jetstream::JetStream,
    names::SubjectNames,
    record::JobRecord,
    request::QueuedRequest,
};
use crate::{estimate::Kind, job::JobId, limit::Collected, store::Work};

/// How long a request for work waits at the server, and so a worker that is to leave for its answer: one
/// that nobody waits for any more swallows a request that is handed back, with server 2.9.
const WAIT: Duration = Duration::from_secs(2);

/// How long the server may take to tell that there is none.
const GRACE: Duration = Duration::from_secs(5);

/// How long after it was found that there is no room it is looked for again.
const SOON: Duration = Duration::from_millis(50);

/// A request that JetStream has handed to this process. Dropped, it is handed out again: at once, unless that was
/// long ago.
#[derive(Debug)]
pub struct NatsTicket {
    /// Until it is claimed.
    message: Option<Message>,
    handed_out: Instant,
    /// For how long nobody else is handed it.
    lease: Duration,
}

impl Drop for NatsTicket {
    fn drop(&mut self) {
        // Without a runtime it is handed out when its lease has ended.
        let (Some(message), Ok(runtime)) = (self.message.take(), Handle::try_current()) else {
            return;
        };
        // PendingReport late, it would be taken from whoever has it by then.
        let is_connected = message.context.client().connection_state() == State::Connected;
        if !is_connected || self.handed_out.elapsed() >= self.lease / 2 {
            return;
        }
        // Ends by itself: it waits for room in the connection's buffer, and not for long.
        runtime.spawn(timeout(GRACE, async move {
            if message.ack_with(AckKind::Nak(None)).await.is_ok() {
                let _ = message.context.client().flush().await;
            }
        }));
    }
}

/// A request as it was handed out.
struct DeliveredRequest {
    id: JobId,
    /// The job as it was made of it.
    queued: JobRecord,
    may_rerun: bool,
    begun_here: bool,
    head: Parts,
    trailers: Option<HeaderMap>,
    /// What of its body is with it.
    body: Bytes,
}

/// Waits for requests, and takes all that are there up to `most`.
pub(super) async fn next(shared: &JetStream, most: usize) -> Result<Vec<NatsTicket>, NatsError> {
    let workers = &shared.streams.workers;
    // Those that are there, in one go; else the first that comes.
    let fetching = workers.fetch().max_messages(most).messages();
    let mut tickets = Vec::new();
    gather(shared, fetching.await, GRACE, &mut tickets).await?;
    if tickets.is_empty() {
        let waiting = workers.batch().max_messages(1).expires(WAIT).messages();
        gather(shared, waiting.await, WAIT + GRACE, &mut tickets).await?;
    }
    Ok(tickets)
}

async fn gather(
    shared: &JetStream,
    batch: Result<
        async_nats::jetstream::consumer::pull::Batch,
        async_nats::jetstream::consumer::pull::BatchError,
    >,
    limit: Duration,
    tickets: &mut Vec<NatsTicket>,
) -> Result<(), NatsError> {
    let mut batch = batch.map_err(NatsError::unavailable)?;
    let gathering = async {
        while let Some(message) = batch.next().await {
            match message {
                Ok(message) => tickets.push(NatsTicket {
                    message: Some(message),
                    handed_out: Instant::now(),
                    lease: shared.options.lease,
                }),
                // What was handed out before is not to wait for its lease to end.
                Err(_) if !tickets.is_empty() => break,
                Err(error) => return Err(NatsError::Unavailable(error)),
            }
        }
        Ok(())
    };
    // No answer at all: the leader has changed, and the next one knows nothing of this.
    timeout(limit, gathering).await.unwrap_or(Ok(()))
}

/// Claims a request, unless that is not to be.
///
/// Everything that the request takes to be run is read before. What goes wrong up to there leaves it as it
/// was; once a claim may be written it is found out whether it is, for half as long as records are kept.
pub(super) async fn claim(
    shared: &Arc<JetStream>,
    mut ticket: NatsTicket,
) -> Result<Option<Work<NatsClaim>>, NatsError> {
    let Some(message) = ticket.message.take() else {
        return Ok(None);
    };
    let info = message.info().map_err(NatsError::Unavailable)?;
    let (delivered, place) = (info.delivered, info.stream_sequence);
    let (message, acker) = message.split();
    let acker = Arc::new(acker);
    let opened = match DeliveredRequest::new(shared, &message.subject, message.payload) {
        Ok(opened) => opened,
        Err(error) => {
            // A newer version may have written it, and may have a worker too.
            later(shared, &acker, shared.options.lease).await?;
            return Err(error);
        }
    };
    let (id, queued) = (opened.id, &opened.queued);
    // For a body that is here already it is of no other use than to know.
    let bytes = match queued.parts {
        None => opened.body.len(),
        Some(count) => count as usize * chunks::LARGEST,
    };
    let bytes = bytes.min(shared.budget.limit());
    let mut charge = shared.budget.reserve(bytes);
    // What runs here may be done soon. But others may have room, too.
    while charge.is_none() && queued.parts.is_some() {
        if ticket.handed_out.elapsed() > shared.options.lease / 4 {
            later(shared, &acker, Duration::ZERO).await?;
            return Ok(None);
        }
        sleep(SOON).await;
        charge = shared.budget.reserve(bytes);
    }
    // Known to who watches for others before anybody can see it.
    let delivery = Delivery::Taken(acker.clone());
    let may_rerun = opened.may_rerun;
    let (name, record) = (rand::random(), queued.clone());
    let held = ActiveClaim::new(id, name, delivery, may_rerun, record, 0, Instant::now());
    let claim = NatsClaim::new(shared, held);
    let attempt = ClaimAttempt {
        shared,
        held: &claim.held,
        queued,
        place,
        begun_here: opened.begun_here,
        delivered,
        handed_out: ticket.handed_out,
    };
    let body = match attempt.decide(opened.body).await {
        Ok(ClaimDecision::Run(body)) => {
            if claim.held.state.lock().is_behind() {
                // For those who look; written beside the call.
                shared.told.notify_one();
            }
            body
        }
        Ok(ClaimDecision::Later(pause)) => {
            later(shared, &acker, pause).await?;
            return Ok(None);
        }
        Ok(ClaimDecision::Done(record)) => {
            shared.tidy(id, &record).await?;
            settle(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
        Ok(ClaimDecision::Double) => {
            settle(&acker, AckKind::Ack).await?;
            return Ok(None);
        }
        Err(error) => {
            later(shared, &acker, Duration::ZERO).await?;
            return Err(error);
        }
    };
    // From here on nothing is waited for: a claim is let go of by whoever has it, and else by nobody.
    let body = Collected {
        charge,
        bytes: body,
        trailers: opened.trailers.map(Box::new),
    };
    Ok(Some(Work {
        claim,
        id,
        created: instant(queued.created_at),
        created_at: time(queued.created_at),
        kind: Kind::new(&queued.kind),
        is_owned: queued.owner.is_some(),
        head: opened.head,
        body,
    }))
}

impl DeliveredRequest {
    fn new(shared: &JetStream, subject: &str, payload: Bytes) -> Result<Self, NatsError> {
        let Some(id) = SubjectNames::id(subject) else {
            return Err(NatsError::unreadable(subject, "not a job's"));
        };
        let (asked, body) = open::<QueuedRequest>(subject, payload)?;
        let (queued, options) = (JobRecord::queued(&asked), &shared.options);
        let (may_rerun, begun_here) = (asked.may_rerun(options), asked.begun_here);
        let head = asked.into_head(options);
        let (head, trailers) = head.map_err(|error| NatsError::unreadable(subject, error))?;
        Ok(Self {
            id,
            queued,
            may_rerun,
            begun_here,
            head,
            trailers,
            body,
        })
    }
}

/// Lets it be handed out again after this pause, and not before a sign of life of whoever else may have it by then
/// can put that off: the server takes this for it however late it comes, and whoever was handed it last.
async fn later(shared: &JetStream, acker: &Acker, pause: Duration) -> Result<(), NatsError> {
    let pause = pause.max(shared.options.lease / 2);
    settle(acker, AckKind::Nak(Some(pause))).await
}

async fn settle(acker: &Acker, kind: AckKind) -> Result<(), NatsError> {
    let settled = acker.ack_with(kind).await;
    settled.map_err(NatsError::unavailable)
}
