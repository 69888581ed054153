use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    Client,
    jetstream::context::{Context, ContextBuilder},
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use super::{
    NatsError, NatsOptions,
    barrier::Barrier,
    claim::Held,
    envelope::{open, seal},
    interest::Interest,
    log::{self, Entry, Refused},
    names::Names,
    record::{Listed, Record, Used},
    sharing::Sharing,
    streams::Streams,
};
use crate::{budget::Budget, job::JobId, owner::Owner, store::Lookup};

/// How many writes may be without an answer at a time.
const IN_FLIGHT: usize = 65_536;

/// How long a leader that has been replaced may go on answering reads: until it hears of the other, which tells
/// of itself at once and then each second.
const NEWS_OF_A_LEADER: Duration = Duration::from_secs(1);

/// The largest message that is written on the strength of what servers take by default.
const PART: usize = 256 << 10;

/// What all clones of a store share.
pub(super) struct Shared {
    pub(super) context: Context,
    pub(super) names: Names,
    pub(super) options: NatsOptions,
    pub(super) streams: Streams,
    pub(super) budget: Budget,
    /// Up to which size a body is kept in its record.
    pub(super) inline: usize,
    pub(super) part: usize,
    /// What this process has claimed or is about to: a job may be claimed twice, by who runs it and by who is
    /// handed its request once more. Held for a look-up or a copy, never across an await.
    pub(super) active: Mutex<BTreeMap<(JobId, u64), Arc<Held>>>,
    pub(super) interest: Interest,
    pub(super) barrier: Barrier,
    /// A call has told something.
    pub(super) told: Notify,
    pub(super) sharing: Sharing,
}

/// A record as it was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// The result's body, if it is with it.
    pub(super) body: Bytes,
}

impl Shared {
    pub(super) async fn connect(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        let context = ContextBuilder::new()
            .timeout(options.ack_timeout)
            .max_ack_inflight(IN_FLIGHT)
            .build(client);
        let names = Names::new(&options.prefix);
        let streams = Streams::make(&context, &names, &options).await?;
        // Known from here on: a client may be there before its connection is.
        let half = (context.client().server_info().max_payload / 2).max(1);
        Ok(Self {
            barrier: Barrier::new(&streams),
            streams,
            names,
            context,
            budget: Budget::new(options.max_bytes),
            inline: options.inline.min(half),
            part: PART.min(half),
            options,
            active: Mutex::default(),
            interest: Interest::default(),
            told: Notify::new(),
            sharing: Sharing::default(),
        })
    }

    pub(super) fn all_active(&self) -> Vec<Arc<Held>> {
        self.active.lock().values().cloned().collect()
    }

    /// The claims of one job.
    pub(super) fn active(&self, id: JobId) -> Vec<Arc<Held>> {
        let active = self.active.lock();
        let of_job = active.range((id, 0)..=(id, u64::MAX));
        of_job.map(|(_, held)| held.clone()).collect()
    }

    /// For how long a write that gets no answer is repeated where a client waits: once.
    pub(super) fn patience(&self) -> Duration {
        self.options.ack_timeout * 3 / 2
    }

    /// What the bucket has of a job: its end, or else what is known of its run.
    pub(super) async fn record(&self, id: JobId) -> Result<Option<Found>, NatsError> {
        for subject in [self.names.end(id), self.names.run(id)] {
            if let Some(entry) = log::last(&self.streams.jobs, &subject).await? {
                return found(entry).map(Some);
            }
        }
        Ok(None)
    }

    /// What is known of a job.
    pub(super) async fn lookup(&self, id: JobId) -> Result<Lookup, NatsError> {
        if let Some(known) = self.look(id).await? {
            return Ok(known);
        }
        let rounds = match self.options.replicas {
            1 => 1,
            _ => 2,
        };
        for round in 0..rounds {
            if round > 0 {
                sleep(NEWS_OF_A_LEADER).await;
            }
            self.barrier.raise().await?;
            if let Some(known) = self.look(id).await? {
                return Ok(known);
            }
        }
        match self.streams.are_whole().await? {
            true => Ok(Lookup::Unknown),
            false => Err(NatsError::unavailable("not all replicas are there to ask")),
        }
    }

    /// What the leaders say of it: from the bucket, or else the queue. What is in neither may have gone
    /// from the one to the other in between.
    async fn look(&self, id: JobId) -> Result<Option<Lookup>, NatsError> {
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
        record: &mut Record,
        body: &[u8],
        expected: u64,
        claim: Option<u64>,
        patience: Duration,
    ) -> Result<Option<u64>, NatsError> {
        record.nonce = rand::random();
        let payload = seal(record, body);
        let (context, expected) = (&self.context, Some(expected));
        match log::write(context, subject, expected, claim, &payload, patience).await {
            Ok(sequence) => Ok(Some(sequence)),
            Err(Refused::Conflict) => {
                let found = log::last(&self.streams.jobs, subject).await?;
                let found = found.map(self::found).transpose()?;
                let same = found.filter(|found| found.record.nonce == record.nonce);
                Ok(same.map(|found| found.sequence))
            }
            Err(Refused::Full) => Err(NatsError::unavailable("the bucket is full")),
            Err(Refused::Unknown(error)) => Err(error),
        }
    }

    /// What a key was used for, and where that is written.
    pub(super) async fn used(&self, subject: &str) -> Result<Option<(Used, u64)>, NatsError> {
        match log::last(&self.streams.jobs, subject).await? {
            Some(entry) => Ok(Some((open(subject, entry.payload)?.0, entry.sequence))),
            None => Ok(None),
        }
    }

    /// Lets a job's key, and its place in its owner's list, live as long as its record does from now
    /// on.
    pub(super) async fn renew(&self, id: JobId, record: &Record) -> Result<(), NatsError> {
        if let Some(key) = &record.key {
            let subject = self.names.key(key);
            if let Some((used, sequence)) = self.used(&subject).await?
                && used.id.0 == id
            {
                let (context, patience) = (&self.context, self.patience());
                let payload = seal(&used, b"");
                let expected = Some(sequence);
                match log::write(context, &subject, expected, None, &payload, patience).await {
                    // Somebody else has renewed it.
                    Ok(_) | Err(Refused::Conflict) => {}
                    Err(Refused::Full) => return Err(NatsError::unavailable("the bucket is full")),
                    Err(Refused::Unknown(error)) => return Err(error),
                }
            }
        }
        match &record.owner {
            Some(owner) => self.list(id, owner, record.created_at).await,
            None => Ok(()),
        }
    }

    /// Puts a job into its owner's list.
    pub(super) async fn list(
        &self,
        id: JobId,
        owner: &Owner,
        created_at: u64,
    ) -> Result<(), NatsError> {
        let subject = self.names.listed(owner, id);
        let payload = seal(&Listed { created_at }, b"");
        let (context, patience) = (&self.context, self.patience());
        match log::write(context, &subject, None, None, &payload, patience).await {
            Ok(_) => Ok(()),
            Err(Refused::Unknown(error)) => Err(error),
            Err(_) => Err(NatsError::unavailable("the bucket is full")),
        }
    }

    /// What is to be done once a job has ended, and before its request leaves the queue. It may be done
    /// twice.
    pub(super) async fn tidy(&self, id: JobId, record: &Record) -> Result<(), NatsError> {
        if !record.forgotten {
            self.renew(id, record).await?;
        }
        if record.parts.is_some() {
            log::purge(&self.streams.requests, &self.names.request_parts(id)).await?;
        }
        Ok(())
    }
}

impl Found {
    pub(super) fn lookup(&self, id: JobId) -> Lookup {
        match &self.record {
            record if record.forgotten => Lookup::Unknown,
            record if record.is_expired() => Lookup::Gone(record.owner),
            record => Lookup::Found(Box::new(record.snapshot(id))),
        }
    }
}

pub(super) fn found(entry: Entry) -> Result<Found, NatsError> {
    let (record, body) = open(&entry.subject, entry.payload)?;
    Ok(Found {
        record,
        subject: entry.subject,
        sequence: entry.sequence,
        body,
    })
}
