use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        context::{Context, ContextBuilder},
        stream::Stream,
    },
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    NatsError, NatsOptions,
    active::ActiveClaim,
    barrier::Barrier,
    chunks::{self, AssembledBody},
    depth::QueueDepth,
    envelope::{open, seal},
    messages::{self, Retry, StoredMessage, WriteError},
    names::SubjectNames,
    record::{ChunkedBody, JobRecord, KeyRecord, OwnerEntry},
    streams::Streams,
    subscribers::Subscribers,
};
use crate::{
    job::{JobId, Owner},
    limit::Budget,
    store::Lookup,
};

/// How many writes may be without an answer at a time.
const IN_FLIGHT: usize = 65_536;

/// What all clones of a store share.
pub(super) struct JetStream {
    pub(super) context: Context,
    pub(super) names: SubjectNames,
    pub(super) options: NatsOptions,
    pub(super) streams: Streams,
    pub(super) budget: Budget,
    /// What this process has claimed or is about to: a job may be claimed twice, by who runs it and by who is
    /// handed its request once more. ActiveClaim for a look-up or a copy, never across an await.
    pub(super) active: Mutex<BTreeMap<(JobId, u64), Arc<ActiveClaim>>>,
    pub(super) interest: Subscribers,
    pub(super) depth: QueueDepth,
    /// Of what a job is looked up in.
    pub(super) barrier: Barrier,
    /// Of the parts of requests.
    requests: Barrier,
    /// Of the parts of results.
    results: Barrier,
    /// A call has told something.
    pub(super) told: Notify,
}

/// A record as it was read.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) record: JobRecord,
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// The result's body, if it is with it.
    pub(super) body: Bytes,
}

impl JetStream {
    pub(super) async fn connect(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        let context = ContextBuilder::new()
            .timeout(options.ack_timeout)
            .max_ack_inflight(IN_FLIGHT)
            .build(client);
        let names = SubjectNames::new(&options.prefix);
        let streams = Streams::make(&context, &names, &options).await?;
        let barrier = |of: &[&Stream<()>]| Barrier::new(of, options.replicas);
        Ok(Self {
            barrier: barrier(&[&streams.queue, &streams.jobs]),
            requests: barrier(&[&streams.requests]),
            results: barrier(&[&streams.results]),
            streams,
            names,
            context,
            budget: Budget::new(options.max_bytes),
            options,
            active: Mutex::default(),
            interest: Subscribers::default(),
            depth: QueueDepth::default(),
            told: Notify::new(),
        })
    }

    /// Up to which size a body is kept in its record: one message has to take that and the head.
    pub(super) fn inline(&self) -> usize {
        self.options.inline.min(self.half())
    }

    /// How large the parts of a body are that is not.
    pub(super) fn part(&self) -> usize {
        chunks::LARGEST.min(self.half())
    }

    /// Half of what the server that this process is connected to takes in one message.
    fn half(&self) -> usize {
        (self.context.client().max_payload() / 2).max(1)
    }

    pub(super) fn all_active(&self) -> Vec<Arc<ActiveClaim>> {
        self.active.lock().values().cloned().collect()
    }

    /// The claims of one job.
    pub(super) fn active(&self, id: JobId) -> Vec<Arc<ActiveClaim>> {
        let active = self.active.lock();
        let of_job = active.range((id, 0)..=(id, u64::MAX));
        of_job.map(|(_, held)| held.clone()).collect()
    }

    /// For how long a write that gets no answer is repeated where a client waits: once.
    pub(super) fn patience(&self) -> Duration {
        self.options.ack_timeout * 3 / 2
    }

    /// What the bucket has of a job: its end, or else what is known of its run.
    pub(super) async fn record(&self, id: JobId) -> Result<Option<StoredRecord>, NatsError> {
        for subject in [self.names.end(id), self.names.run(id)] {
            if let Some(entry) = messages::last(&self.streams.jobs, &subject).await? {
                return found(entry).map(Some);
            }
        }
        Ok(None)
    }

    /// The job's record as [`record`](Self::record) has it, at its place; but as it is by its last claim, where it does
    /// not tell of that yet.
    pub(super) async fn known(&self, id: JobId) -> Result<Option<StoredRecord>, NatsError> {
        let Some(mut known) = self.record(id).await? else {
            return Ok(None);
        };
        while !known.record.is_ended() {
            match self.claim_after(id, &known.record).await? {
                Some(claimed) => known.record = claimed.record,
                None => break,
            }
        }
        Ok(Some(known))
    }

    /// The claim of a job that came after this record of it.
    pub(super) async fn claim_after(
        &self,
        id: JobId,
        record: &JobRecord,
    ) -> Result<Option<StoredRecord>, NatsError> {
        let subject = self.names.claim(id, record.attempts.saturating_add(1));
        match messages::last(&self.streams.jobs, &subject).await? {
            Some(entry) => found(entry).map(Some),
            None => Ok(None),
        }
    }

    /// What is known of a job.
    pub(super) async fn lookup(&self, id: JobId) -> Result<Lookup, NatsError> {
        let known = self.barrier.read(|| self.look(id)).await?;
        Ok(known.unwrap_or(Lookup::Unknown))
    }

    /// A request's body from its parts; `None` where they have expired.
    pub(super) async fn request_body(
        &self,
        id: JobId,
        count: u32,
    ) -> Result<Option<AssembledBody>, NatsError> {
        let subject = |part| self.names.request_part(id, part);
        chunks::read(&self.streams.requests, &self.requests, subject, count).await
    }

    /// A result's body from its parts; `None` where they have expired.
    pub(super) async fn result_body(
        &self,
        id: JobId,
        ChunkedBody { claim, count }: ChunkedBody,
    ) -> Result<Option<Bytes>, NatsError> {
        let subject = |part| self.names.result_part(id, claim, part);
        let read = chunks::read(&self.streams.results, &self.results, subject, count);
        Ok(read.await?.map(|whole| whole.bytes))
    }

    /// What the leaders say of it: from the bucket, or else the queue. What is in neither may have gone
    /// from the one to the other in between.
    pub(super) async fn look(&self, id: JobId) -> Result<Option<Lookup>, NatsError> {
        if let Some(found) = self.record(id).await? {
            return Ok(Some(found.lookup(id)));
        }
        if let Some(waiting) = self.waiting(id).await? {
            return Ok(Some(Lookup::Found(Box::new(waiting.asked.snapshot(id)))));
        }
        let found = self.record(id).await?;
        Ok(found.map(|found| found.lookup(id)))
    }

    /// Writes a record where there is none, or over the one of this sequence. `None`: there is another.
    ///
    /// Where none is expected that is one step. Where one is, a cluster of servers looks only at what has
    /// been applied when the write is proposed (until 2.12 at least): of two that are on their way at a time
    /// both may go through. So what decides anything is written where nothing was: the claim of a request,
    /// the end of a job, the use of a key.
    pub(super) async fn put(
        &self,
        subject: &str,
        record: &mut JobRecord,
        body: &[u8],
        expected: u64,
        claim: Option<u64>,
        patience: Duration,
    ) -> Result<Option<u64>, NatsError> {
        record.nonce = rand::random();
        let payload = seal(record, body);
        let context = &self.context;
        let mut repeating = Retry::until(patience);
        let mut is_in_the_way = false;
        loop {
            match messages::write(context, subject, Some(expected), claim, &payload, patience).await
            {
                Ok(sequence) => return Ok(Some(sequence)),
                Err(WriteError::Conflict) => is_in_the_way = true,
                // What was in the way may have been this, into the last place there was.
                Err(WriteError::Full) if is_in_the_way => {}
                Err(refused) => return Err(refused.into_error()),
            }
            // Of somebody else, or of this very write, whose answer was lost: that has to be known.
            let error = match messages::last(&self.streams.jobs, subject).await {
                Ok(Some(entry)) => {
                    let found = found(entry)?;
                    let is_this = found.record.nonce == record.nonce;
                    return Ok(is_this.then_some(found.sequence));
                }
                Ok(None) if expected != 0 => return Ok(None),
                // It has expired meanwhile, or a new leader does not know of it yet.
                Ok(None) => NatsError::unavailable("what was in the way is not there"),
                Err(error) => error,
            };
            repeating.after(error, subject).await?;
        }
    }

    /// Writes what is no record, for as long as a client waits.
    pub(super) async fn write(
        &self,
        subject: &str,
        expected: Option<u64>,
        payload: &Bytes,
    ) -> Result<u64, WriteError> {
        let patience = self.patience();
        messages::write(&self.context, subject, expected, None, payload, patience).await
    }

    /// What a key was used for, and where that is written.
    pub(super) async fn used(&self, subject: &str) -> Result<Option<(KeyRecord, u64)>, NatsError> {
        match messages::last(&self.streams.jobs, subject).await? {
            Some(entry) => Ok(Some((open(subject, entry.payload)?.0, entry.sequence))),
            None => Ok(None),
        }
    }

    /// Lets a job's key, and its place in its owner's list, live as long as its record does from now
    /// on.
    pub(super) async fn renew(&self, id: JobId, record: &JobRecord) -> Result<(), NatsError> {
        if let Some(key) = &record.key {
            let subject = self.names.key(key);
            if let Some((used, sequence)) = self.used(&subject).await?
                && used.id.0 == id
            {
                let written = self
                    .write(&subject, Some(sequence), &seal(&used, b""))
                    .await;
                match written {
                    // Somebody else has renewed it.
                    Ok(_) | Err(WriteError::Conflict) => {}
                    Err(refused) => return Err(refused.into_error()),
                }
            }
        }
        self.list(id, record.owner.as_ref(), record.created_at)
            .await
    }

    /// Puts a job into its owner's list, where it has one.
    pub(super) async fn list(
        &self,
        id: JobId,
        owner: Option<&Owner>,
        created_at: u64,
    ) -> Result<(), NatsError> {
        let Some(owner) = owner else {
            return Ok(());
        };
        let subject = self.names.listed(owner, id);
        let payload = seal(&OwnerEntry { created_at }, b"");
        let written = self.write(&subject, None, &payload).await;
        written.map(drop).map_err(WriteError::into_error)
    }

    /// What is to be done once a job has ended, and before its request leaves the queue. It may be done
    /// twice.
    pub(super) async fn tidy(&self, id: JobId, record: &JobRecord) -> Result<(), NatsError> {
        if !record.forgotten {
            self.renew(id, record).await?;
        }
        match record.parts {
            Some(count) => self.remove_request(id, count).await,
            None => Ok(()),
        }
    }

    /// Removes a request's body.
    pub(super) async fn remove_request(&self, id: JobId, count: u32) -> Result<(), NatsError> {
        let subject = |part| self.names.request_part(id, part);
        chunks::remove(&self.streams.requests, subject, count).await
    }
}

impl StoredRecord {
    pub(super) fn lookup(&self, id: JobId) -> Lookup {
        match &self.record {
            record if record.forgotten => Lookup::Unknown,
            record if record.is_expired() => Lookup::Gone(record.owner),
            record => Lookup::Found(Box::new(record.snapshot(id))),
        }
    }
}

fn found(entry: StoredMessage) -> Result<StoredRecord, NatsError> {
    let (record, body) = open(&entry.subject, entry.payload)?;
    Ok(StoredRecord {
        record,
        subject: entry.subject,
        sequence: entry.sequence,
        body,
    })
}
