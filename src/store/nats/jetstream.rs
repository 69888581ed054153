//! The connection to JetStream, and the conditional writes that decide what happens to a job.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        context::{Context, ContextBuilder},
        stream::Stream,
    },
};
use bytes::Bytes;

use super::{
    barrier::Barrier,
    chunks,
    envelope::decode,
    error::NatsError,
    messages::{self, StoredMessage, WriteError},
    names::ResourceNames,
    options::NatsOptions,
    record::JobRecord,
    retry::Retry,
    streams::Streams,
};
use crate::store::Budget;

/// The default limit of the memory budget, in bytes.
const DEFAULT_MAX_BYTES: usize = 256 << 20;

/// The maximum number of writes without an acknowledgement.
const MAX_UNACKNOWLEDGED: usize = 65_536;

/// The streams of one prefix, and what is needed to use them.
pub(super) struct JetStream {
    pub(super) context: Context,
    pub(super) names: ResourceNames,
    pub(super) options: NatsOptions,
    pub(super) streams: Streams,
    pub(super) budget: Budget,
    /// Covers the streams that a look-up reads: jobs and queue.
    pub(super) job_barrier: Barrier,
    /// Covers the chunks of request bodies.
    pub(super) request_barrier: Barrier,
    /// Covers the chunks of result bodies.
    pub(super) result_barrier: Barrier,
    /// Covers the deliveries.
    pub(super) delivery_barrier: Barrier,
}

/// A record as read from the bucket.
#[derive(Debug)]
pub(super) struct StoredRecord {
    pub(super) record: JobRecord,
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// The result's body, if the message holds it.
    pub(super) body: Bytes,
}

impl JetStream {
    /// Opens the streams, and creates missing ones.
    pub(super) async fn connect(client: Client, options: NatsOptions) -> Result<Self, NatsError> {
        let context = ContextBuilder::new()
            .timeout(options.ack_timeout)
            .max_ack_inflight(MAX_UNACKNOWLEDGED)
            .build(client);
        let names = ResourceNames::new(&options.prefix);
        let streams = Streams::open(&context, &names, &options).await?;
        let barrier = |streams: &[&Stream<()>]| Barrier::new(streams, options.replicas);
        Ok(Self {
            job_barrier: barrier(&[&streams.queue, &streams.jobs]),
            request_barrier: barrier(&[&streams.requests]),
            result_barrier: barrier(&[&streams.results]),
            delivery_barrier: barrier(&[&streams.deliveries]),
            streams,
            names,
            context,
            budget: Budget::new(DEFAULT_MAX_BYTES),
            options,
        })
    }

    /// Returns the maximum size of a body within its record: head and body share one message.
    pub(super) fn max_inline_bytes(&self) -> usize {
        self.options.inline.min(self.half_payload())
    }

    /// Returns the chunk size for larger bodies.
    pub(super) fn chunk_bytes(&self) -> usize {
        chunks::MAX_CHUNK_BYTES.min(self.half_payload())
    }

    /// Returns half of the connected server's `max_payload`.
    fn half_payload(&self) -> usize {
        (self.context.client().max_payload() / 2).max(1)
    }

    /// Returns how long a write is retried while a client waits: enough for one retry.
    pub(super) fn client_patience(&self) -> Duration {
        self.options.ack_timeout * 3 / 2
    }

    /// Returns the interval of refreshing records that must not expire.
    pub(super) fn refresh_interval(&self) -> Duration {
        self.options.retain / 4
    }

    /// Reads the record at a subject.
    pub(super) async fn record_at(&self, subject: &str) -> Result<Option<StoredRecord>, NatsError> {
        match messages::last(&self.streams.jobs, subject).await? {
            Some(message) => StoredRecord::decode(message).map(Some),
            None => Ok(None),
        }
    }

    /// Writes a record if the subject's last message is at `expected`; 0 stands for no message.
    ///
    /// Returns the record's sequence, or `None` if another record is in its place.
    ///
    /// Only `expected == 0` is atomic. For other values a cluster (up to nats-server 2.12 at least)
    /// checks against what it has applied when it proposes the write, so two concurrent writes may
    /// both succeed. Hence every decision is the creation of a subject: the claim of a request, the
    /// end of a job, the use of a key.
    pub(super) async fn put_record(
        &self,
        subject: &str,
        record: &mut JobRecord,
        body: &[u8],
        expected: u64,
        claim: Option<u64>,
        patience: Duration,
    ) -> Result<Option<u64>, NatsError> {
        record.nonce = rand::random();
        let payload = record.encode(body);
        let context = &self.context;
        let headers = claim.map(messages::claim_header);
        let headers = headers.as_ref();
        let mut retry = Retry::within(patience);
        let mut had_conflict = false;
        loop {
            let written = messages::publish(
                context,
                subject,
                Some(expected),
                headers,
                &payload,
                patience,
            );
            match written.await {
                Ok(sequence) => return Ok(Some(sequence)),
                Err(WriteError::Conflict) => had_conflict = true,
                // The conflict may have been this very record, which took the last free slot.
                Err(WriteError::Full) if had_conflict => {}
                Err(error) => return Err(error.into_error()),
            }
            // Find out whether the record there is another one, or this one after a lost
            // acknowledgement.
            let error = match self.record_at(subject).await {
                Ok(Some(found)) => {
                    let is_this = found.record.nonce == record.nonce;
                    return Ok(is_this.then_some(found.sequence));
                }
                Ok(None) if expected != 0 => return Ok(None),
                // It has expired in between, or a new leader has not applied it yet.
                Ok(None) => NatsError::unavailable("the conflicting record is missing"),
                Err(error @ NatsError::Unreadable { .. }) => return Err(error),
                Err(error) => error,
            };
            retry.wait(error, subject).await?;
        }
    }

    /// Publishes a message other than a record, for as long as a client waits.
    pub(super) async fn publish(
        &self,
        subject: &str,
        expected: Option<u64>,
        payload: &Bytes,
    ) -> Result<u64, WriteError> {
        let patience = self.client_patience();
        messages::publish(&self.context, subject, expected, None, payload, patience).await
    }
}

impl StoredRecord {
    fn decode(message: StoredMessage) -> Result<Self, NatsError> {
        let (record, body) = decode(&message.subject, message.payload)?;
        Ok(Self {
            record,
            subject: message.subject,
            sequence: message.sequence,
            body,
        })
    }
}
