//! How a request becomes a job.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    NatsError,
    active::{ActiveClaim, Delivery, NatsClaim},
    chunks,
    clock::{now, whole_millis},
    envelope::seal,
    jetstream::JetStream,
    messages::{self, WriteError},
    record::{ClaimHolder, IdText, JobRecord, KeyRecord},
    request::{NatsRecord, QueuedRequest},
};
use crate::{
    config::{Fingerprint, Key},
    job::{ErrorCode, Event, JobId, Snapshot},
    store::{Acceptance, Lookup, NewJob},
};

/// How often a key that changes under one's hands is looked at again.
const ROUNDS: usize = 8;

/// How long after it was looked at last.
const SOON: Duration = Duration::from_millis(50);

/// What a request with a key comes to.
enum KeyLookup {
    /// The first with this key: its job is to be made.
    First,
    /// A repeated one, whose first has a job.
    Repeated(Box<Snapshot>),
    /// A repeated one, whose first never became a job: it is made for it, of this id.
    Orphaned(JobId),
    Reused,
    /// It would be the first, and there is no room.
    Full,
}

pub(super) async fn accept(
    shared: Arc<JetStream>,
    mut new: NewJob,
    request: NatsRecord,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    let Some((key, fingerprint)) = new.key else {
        return match new.join_only {
            true => Ok(Acceptance::Full),
            false => submit(&shared, new, request).await,
        };
    };
    let keyed = shared.look_up_key(&new, key, fingerprint).await?;
    match keyed {
        KeyLookup::First => submit(&shared, new, request).await,
        KeyLookup::Repeated(snapshot) => Ok(Acceptance::Joined(snapshot)),
        KeyLookup::Reused => Ok(Acceptance::KeyReused),
        KeyLookup::Full => Ok(Acceptance::Full),
        KeyLookup::Orphaned(id) => {
            new.id = id;
            new.run_here = false;
            let asked = QueuedRequest::new(&new, &request, None);
            let submitted = submit(&shared, new, request).await?;
            match submitted {
                Acceptance::Queued => Ok(Acceptance::Joined(Box::new(asked.snapshot(id)))),
                refused => Ok(refused),
            }
        }
    }
}

/// Puts the request into the queue: from then on it is accepted.
async fn submit(
    shared: &Arc<JetStream>,
    new: NewJob,
    request: NatsRecord,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    let limit = shared.options.max_queued;
    if limit.is_some_and(|limit| !shared.depth.add(limit)) {
        return Ok(Acceptance::Full);
    }
    let (asked, payload) = match prepare(shared, &new, &request).await {
        Ok(prepared) => prepared,
        Err(refused) => return refuse(shared, &new, &request, refused).await,
    };
    let submitted = match new.run_here {
        true => hold(shared, &new, &asked, &payload).await,
        false => queue(shared, &new, &asked, &payload).await,
    };
    match submitted {
        // It may be there or not.
        Err(WriteError::Unknown(error)) => Err(error),
        Err(refused) => refuse(shared, &new, &request, refused).await,
        Ok(accepted) => Ok(accepted),
    }
}

/// Makes of a request what is put into the queue; where its body is large, that is written before.
async fn prepare(
    shared: &JetStream,
    new: &NewJob,
    request: &NatsRecord,
) -> Result<(QueuedRequest, Bytes), WriteError> {
    let (parts, body) = match request.body.len() > shared.inline() {
        false => (None, &request.body[..]),
        true => (Some(shared.write_request(new.id, request).await?), &[][..]),
    };
    let asked = QueuedRequest::new(new, request, parts);
    let payload = seal(&asked, body);
    // Before anything is written of it that a repeated request could join.
    match payload.len() > shared.context.client().max_payload() {
        true => Err(WriteError::TooLarge),
        false => Ok((asked, payload)),
    }
}

/// Answers a request that is not in the queue, and takes the parts of its body away; else they go by themselves, in
/// days. Those of one with a key may be those of who repeats it.
async fn refuse(
    shared: &JetStream,
    new: &NewJob,
    request: &NatsRecord,
    refused: WriteError,
) -> Result<Acceptance<NatsClaim>, NatsError> {
    if new.key.is_none() && request.body.len() > shared.inline() {
        let count = chunks::count(&request.body, shared.part());
        if let Err(error) = shared.remove_request(new.id, count).await {
            tracing::warn!(
                %error,
                id = %new.id,
                "parts of a request that was not accepted are left"
            );
        }
    }
    match refused {
        WriteError::Full => Ok(Acceptance::Full),
        WriteError::TooLarge => Ok(Acceptance::TooLarge),
        refused => Err(refused.into_error()),
    }
}

/// Makes a job that any worker runs.
async fn queue(
    shared: &JetStream,
    new: &NewJob,
    asked: &QueuedRequest,
    payload: &Bytes,
) -> Result<Acceptance<NatsClaim>, WriteError> {
    let listing = shared.list(new.id, asked.owner.as_ref(), asked.created_at);
    let (queued, listed) = tokio::join!(shared.enqueue(new.id, payload), listing);
    match queued {
        Ok(_) => {
            if let Err(error) = listed {
                tracing::warn!(%error, id = %new.id, "a job is not listed before it runs");
            }
            Ok(Acceptance::Queued)
        }
        // One with a key somebody may have joined meanwhile, and been told that it is accepted.
        Err(WriteError::Unknown(error)) if new.key.is_none() => {
            let withdrawn = shared.withdraw(new.id, asked, error).await;
            withdrawn.map_err(WriteError::Unknown)
        }
        Err(refused) => Err(refused),
    }
}

/// Makes a job that this process runs. Its record is there before its request is, so that whoever is
/// handed that sees that it is held.
async fn hold(
    shared: &Arc<JetStream>,
    new: &NewJob,
    asked: &QueuedRequest,
    payload: &Bytes,
) -> Result<Acceptance<NatsClaim>, WriteError> {
    let (claim, begun, since) = (rand::random(), Instant::now(), now());
    let holder = ClaimHolder {
        claim,
        message: None,
        until: Some(since.saturating_add(whole_millis(shared.options.lease))),
        since,
    };
    let mut record = JobRecord::here(new, asked, holder);
    let patience = shared.patience();
    let run = shared.names.run(new.id);
    let put = shared.put(&run, &mut record, b"", 0, Some(claim), patience);
    let Some(at) = put.await.map_err(WriteError::Unknown)? else {
        // Of its id there is a job: it was made for a request with its key, a moment ago.
        return Ok(Acceptance::Queued);
    };
    // At a time: its lease goes on from before the record was written.
    let listing = shared.list(new.id, asked.owner.as_ref(), asked.created_at);
    let (queued, listed) = tokio::join!(shared.enqueue(new.id, payload), listing);
    let sequence = match queued {
        Ok(sequence) => sequence,
        // Somebody may have joined it meanwhile, and been told that it is accepted. So it is given back, or else its lease
        // ends, and then a worker runs it; or where it is not in the queue, the next that repeats the key brings it there.
        Err(WriteError::Unknown(error)) if new.key.is_some() => {
            record.hand_back();
            let given_back = shared
                .put(&run, &mut record, b"", at, Some(claim), patience)
                .await;
            if let Err(error) = given_back {
                tracing::debug!(%error, id = %new.id, "a job is left to its lease");
            }
            return Err(WriteError::Unknown(error));
        }
        Err(refused) => {
            // What cannot be taken back goes by itself: nobody has been told of it.
            record.end(Event::Broke(ErrorCode::Canceled), Duration::ZERO);
            record.forgotten = true;
            let end = shared.names.end(new.id);
            let taken_back = shared.put(&end, &mut record, b"", 0, None, patience).await;
            return taken_back.map_err(WriteError::Unknown).and(Err(refused));
        }
    };
    if let Err(error) = listed {
        tracing::warn!(%error, id = %new.id, "a job is not listed before it ends");
    }
    let may_rerun = asked.may_rerun(&shared.options);
    let delivery = Delivery::Here(sequence);
    let held = ActiveClaim::new(new.id, claim, delivery, may_rerun, record, at, begun);
    Ok(Acceptance::RunHere(NatsClaim::new(shared, held)))
}

impl JetStream {
    /// Writes a body in parts. That one of them is too large says nothing of the request's head.
    async fn write_request(&self, id: JobId, request: &NatsRecord) -> Result<u32, WriteError> {
        let subject = |part| self.names.request_part(id, part);
        let (body, size) = (&request.body, self.part());
        let written = chunks::write(&self.context, subject, body, size, self.patience()).await;
        written.map_err(|refused| match refused {
            WriteError::Full => WriteError::Full,
            refused => WriteError::Unknown(refused.into_error()),
        })
    }

    /// Puts a request into the queue, perhaps twice where the first answer is lost: whoever is handed the
    /// second sees that.
    ///
    /// It is not told to expect no other. What is in a work queue at a time is not the same on all of its
    /// replicas, since what is acknowledged is removed on each by itself: of a repeated write, one replica
    /// might find the first in its way, and another not. Up to 2.11 each decides for itself then, and from
    /// there on they differ.
    async fn enqueue(&self, id: JobId, payload: &Bytes) -> Result<u64, WriteError> {
        self.write(&self.names.queued(id), None, payload).await
    }

    /// Whether a request was put into the queue is not known: it is not, from now on, unless a worker
    /// has it already.
    async fn withdraw(
        &self,
        id: JobId,
        asked: &QueuedRequest,
        error: NatsError,
    ) -> Result<Acceptance<NatsClaim>, NatsError> {
        let mut record = JobRecord::queued(asked);
        record.end(Event::Broke(ErrorCode::Canceled), Duration::ZERO);
        record.forgotten = true;
        // In the way of whoever would claim it.
        let run = self.names.run(id);
        let withdrawn = self.put(&run, &mut record, b"", 0, None, self.patience());
        if withdrawn.await?.is_none() {
            return Ok(Acceptance::Queued);
        }
        // Should it come to the queue later, it is taken out there.
        self.take_out(id).await?;
        Err(error)
    }

    async fn look_up_key(
        &self,
        new: &NewJob,
        key: Key,
        fingerprint: Fingerprint,
    ) -> Result<KeyLookup, NatsError> {
        let subject = self.names.key(&key);
        let used = KeyRecord {
            nonce: rand::random(),
            id: IdText(new.id),
            fingerprint,
        };
        let payload = seal(&used, b"");
        for _ in 0..ROUNDS {
            // Of all who find the key free, one is the first where there is none.
            if !new.join_only {
                match self.write(&subject, Some(0), &payload).await {
                    Ok(_) => return Ok(KeyLookup::First),
                    Err(WriteError::Conflict) => {}
                    Err(WriteError::Full) => return Ok(KeyLookup::Full),
                    Err(refused) => return Err(refused.into_error()),
                }
            }
            let Some((found, sequence)) = self.used(&subject).await? else {
                if new.join_only {
                    return Ok(KeyLookup::Full);
                }
                continue;
            };
            if found.nonce == used.nonce {
                return Ok(KeyLookup::First);
            }
            let id = found.id.0;
            // Where a job is made for it that is there all the same, one of them is run: its claim and its end are
            // written where nothing was.
            let known = self.barrier.find(|| self.look(id)).await?;
            let is_gone = match known.unwrap_or(Lookup::Unknown) {
                Lookup::Found(_) if found.fingerprint != fingerprint => {
                    return Ok(KeyLookup::Reused);
                }
                // One that was begun where its request came in is there before that is in the queue, and may
                // yet be refused; or its process is gone, and it never comes there.
                Lookup::Found(snapshot)
                    if !snapshot.status.is_ended() && self.waiting(id).await?.is_none() =>
                {
                    match self.record(id).await? {
                        Some(found) if found.record.is_abandoned() => false,
                        _ => {
                            sleep(SOON).await;
                            continue;
                        }
                    }
                }
                Lookup::Found(snapshot) => return Ok(KeyLookup::Repeated(snapshot)),
                Lookup::Gone(_) => true,
                Lookup::Unknown => match self.record(id).await? {
                    None => false,
                    Some(found) if found.record.forgotten => true,
                    // It has come just now.
                    Some(_) => continue,
                },
            };
            match is_gone {
                _ if new.join_only => return Ok(KeyLookup::Full),
                true => messages::delete(&self.streams.jobs, sequence).await?,
                false if found.fingerprint != fingerprint => return Ok(KeyLookup::Reused),
                false => return Ok(KeyLookup::Orphaned(id)),
            }
        }
        Err(NatsError::unavailable("a key is being used over and over"))
    }
}
