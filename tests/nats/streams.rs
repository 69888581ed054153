//! Reads and writes the streams of a store directly, past the store.

use std::time::Duration;

use async_nats::{
    Subscriber,
    jetstream::{
        self, AckKind, Message,
        consumer::PullConsumer,
        stream::{RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower_accepted::JobId;

use crate::{server::Servers, site::until};

pub(crate) const QUEUE: &str = "accepted_queue";
pub(crate) const BUCKET: &str = "KV_accepted_jobs";
pub(crate) const KEYS: &str = "KV_accepted_keys";
pub(crate) const REQUESTS: &str = "accepted_requests";
pub(crate) const RESULTS: &str = "accepted_results";
pub(crate) const DELIVERIES: &str = "accepted_deliveries";
pub(crate) const CONSUMER: &str = "accepted_workers";

/// A subject in the bucket that no process renews.
const UNRENEWED: &str = "$KV.accepted_jobs.unrenewed";

/// The version byte and the length that precede the head of a record.
const PREFIX_BYTES: usize = 5;

/// Opens a stream that exists.
pub(crate) async fn stream(servers: &Servers, name: &str) -> Stream {
    let jetstream = jetstream::new(servers.client().await);
    jetstream.get_stream(name).await.expect("the stream exists")
}

/// Returns the subjects and payloads of all messages in a stream.
pub(crate) async fn messages(stream: &Stream) -> Vec<(String, Bytes)> {
    let state = stream.get_info().await.expect("the server answers").state;
    let mut messages = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            messages.push((message.subject.to_string(), message.payload));
        }
    }
    messages
}

/// Publishes messages to the streams of their subjects.
pub(crate) async fn publish(servers: &Servers, messages: Vec<(String, Bytes)>) {
    let jetstream = jetstream::new(servers.client().await);
    for (subject, payload) in messages {
        let sent = jetstream.publish(subject, payload).await.expect("sent");
        sent.await.expect("stored");
    }
}

/// Pulls one message from the queue, as a worker does.
pub(crate) async fn pull(servers: &Servers) -> Option<Message> {
    let queue = stream(servers, QUEUE).await;
    let workers = queue.get_consumer(CONSUMER).await;
    let workers: PullConsumer = workers.expect("the consumer exists");
    let messages = workers.fetch().max_messages(1).messages().await;
    let message = messages.expect("the server answers").next().await;
    message.map(|message| message.expect("a message"))
}

/// Delivers the one message of the queue once without a claim, and requeues it.
pub(crate) async fn deliver_unclaimed(servers: &Servers) {
    let message = pull(servers).await.expect("the queue has a message");
    message.ack_with(AckKind::Nak(None)).await.unwrap();
    // Otherwise the connection may close before the server has the acknowledgment.
    message.context.client().flush().await.unwrap();
}

/// Waits until the server has delivered a message again.
pub(crate) async fn redelivered(servers: &Servers) {
    let queue = stream(servers, QUEUE).await;
    until(async || {
        let info = queue.consumer_info(CONSUMER).await.unwrap();
        info.num_redelivered > 0
    })
    .await;
}

/// Returns the subject of a job's run record.
pub(crate) fn run_subject(id: JobId) -> String {
    format!("$KV.accepted_jobs.job.run.{id}")
}

/// Reads the head of a record in the bucket.
pub(crate) async fn read_record(servers: &Servers, subject: &str) -> Value {
    let bucket = stream(servers, BUCKET).await;
    let entry = bucket.get_last_raw_message_by_subject(subject).await;
    let payload = entry.unwrap().payload;
    let length = u32::from_be_bytes(payload[1..PREFIX_BYTES].try_into().unwrap()) as usize;
    serde_json::from_slice(&payload[PREFIX_BYTES..PREFIX_BYTES + length]).unwrap()
}

/// Writes a record without a body, in the format of the store.
pub(crate) async fn write_record(servers: &Servers, subject: String, record: &Value) {
    let head = record.to_string();
    let length = u32::try_from(head.len()).expect("a short record");
    let payload = [&[1][..], &length.to_be_bytes(), head.as_bytes()].concat();
    publish(servers, vec![(subject, payload.into())]).await;
}

/// Claims a job that has no record, in the name of a worker that does not exist.
pub(crate) async fn claim_first(servers: &Servers, id: JobId) {
    let record = json!({
        "nonce": 1, "revision": 2, "status": "running", "created_at": 1, "kind": "", "attempts": 1,
        "holder": {"claim": 7, "message": 1},
    });
    write_record(servers, run_subject(id), &record).await;
}

/// Claims a job that was claimed once, in the name of a worker that does not exist.
///
/// Only the claim is written. The run record, which `record` is a copy of, stays as it is.
pub(crate) async fn claim_second(servers: &Servers, id: JobId, mut record: Value) {
    record["attempts"] = 2.into();
    record["holder"] = json!({"claim": 7, "message": 1});
    let subject = format!("$KV.accepted_jobs.claim.{id}.2");
    write_record(servers, subject, &record).await;
}

/// A record that nothing renews. Once it has expired, every older record has too, unless renewed.
pub(crate) struct UnrenewedRecord {
    bucket: Stream,
}

impl UnrenewedRecord {
    pub(crate) async fn write(servers: &Servers) -> Self {
        publish(servers, vec![(UNRENEWED.to_owned(), Bytes::new())]).await;
        let bucket = stream(servers, BUCKET).await;
        Self { bucket }
    }

    pub(crate) async fn has_expired(&self) -> bool {
        let found = self.bucket.get_last_raw_message_by_subject(UNRENEWED).await;
        found.is_err_and(|error| error.kind() == RawMessageErrorKind::NoMessageFound)
    }
}

/// Waits for as long as the bucket keeps a record that nothing renews.
pub(crate) async fn outlast_retention(servers: &Servers) {
    let record = UnrenewedRecord::write(servers).await;
    until(async || record.has_expired().await).await;
}

/// The acknowledgments that workers send to the queue from now on.
pub(crate) struct Acks {
    subscriber: Subscriber,
}

impl Acks {
    pub(crate) async fn subscribe(servers: &Servers) -> Self {
        let client = servers.client().await;
        let subscriber = client.subscribe("$JS.ACK.accepted_queue.>").await.unwrap();
        client.flush().await.unwrap();
        Self { subscriber }
    }

    async fn any(&mut self) -> String {
        let ack = self.subscriber.next().await.expect("a subscription");
        String::from_utf8(ack.payload.to_vec()).unwrap()
    }

    /// Waits for the next acknowledgment that is not a heartbeat.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            let ack = self.any().await;
            if ack != "+WPI" {
                return ack;
            }
        }
    }

    /// Waits for the next acknowledgment, which must delay a message, and returns the delay.
    pub(crate) async fn delay(&mut self) -> Duration {
        let ack = self.next().await;
        let nanos = ack
            .strip_prefix("-NAK {\"delay\":")
            .and_then(|rest| rest.strip_suffix('}'));
        let nanos = nanos.unwrap_or_else(|| panic!("not a delay: {ack}"));
        Duration::from_nanos(nanos.parse().unwrap())
    }

    /// Waits for this many heartbeats. A worker sends three per lease.
    pub(crate) async fn heartbeats(&mut self, mut count: usize) {
        while count > 0 {
            let ack = self.any().await;
            assert_eq!(ack, "+WPI", "only heartbeats");
            count -= 1;
        }
    }
}
