//! Deliveries as the stream keeps them: each has a subject of its own.

use async_nats::{HeaderMap, header::HeaderValue};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
    names::ResourceNames,
    record::JobRecord,
};
use crate::{
    JobId,
    store::{Delivery, DeliveryId, StoredDelivery},
};

/// The header with a delivery, except for its id and its body. The body is the payload.
///
/// A reader that needs no bodies receives only headers.
const DELIVERY_HEADER: &str = "Tower-Accepted-Delivery";

/// The start of the header. Deliveries with an unknown version are left alone.
const VERSION: &str = "1 ";

/// The number of deliveries that are read or written concurrently.
const CONCURRENCY: usize = 32;

/// A delivery as read from the stream.
#[derive(Debug)]
pub(super) struct RecordedDelivery {
    pub(super) delivery: Delivery,
    pub(super) sequence: u64,
}

impl JetStream {
    /// Records the deliveries of a job's end.
    ///
    /// Runs after the end is written and before the request leaves the queue. If the process dies
    /// in between, the queue delivers the request again, and the next worker records them. They
    /// depend on the job's record alone, and one that exists stays as it is.
    pub(super) async fn record_deliveries(
        &self,
        id: JobId,
        record: &JobRecord,
    ) -> Result<(), NatsError> {
        if record.details.callbacks.is_none() {
            return Ok(());
        }
        let deliveries = Delivery::of_end(&record.snapshot(id));
        stream::iter(deliveries)
            .map(async |delivery| self.record_delivery(&delivery).await)
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    async fn record_delivery(&self, delivery: &Delivery) -> Result<(), NatsError> {
        match self.put_delivery(delivery, 0).await {
            Ok(_) | Err(WriteError::Conflict) => Ok(()),
            // Another attempt would fail too, and the request must leave the queue before the job's
            // record expires.
            Err(error @ (WriteError::Full | WriteError::TooLarge)) => {
                let error = error.into_error();
                tracing::warn!(%error, id = %delivery.id, "failed to record a delivery");
                Ok(())
            }
            Err(WriteError::Unknown(error)) => Err(error),
        }
    }

    /// Writes a delivery if its last message is at `expected`; 0 stands for no message. Returns its
    /// sequence.
    pub(super) async fn put_delivery(
        &self,
        delivery: &Delivery,
        expected: u64,
    ) -> Result<u64, WriteError> {
        let headers = encode_header(delivery).map_err(WriteError::Unknown)?;
        messages::publish(
            &self.context,
            &self.names.delivery(delivery.id),
            Some(expected),
            Some(&headers),
            &delivery.body,
            self.client_patience(),
        )
        .await
    }

    /// Reads a delivery. Returns `None` only if a majority of the replicas confirms it.
    pub(super) async fn delivery(
        &self,
        id: DeliveryId,
    ) -> Result<Option<RecordedDelivery>, NatsError> {
        let barrier = &self.delivery_barrier;
        barrier
            .read_from_majority(|| self.delivery_at_leader(id))
            .await
    }

    async fn delivery_at_leader(
        &self,
        id: DeliveryId,
    ) -> Result<Option<RecordedDelivery>, NatsError> {
        let subject = self.names.delivery(id);
        let found = messages::last(&self.streams.deliveries, &subject).await?;
        let Some(message) = found else {
            return Ok(None);
        };
        Ok(Some(RecordedDelivery {
            delivery: decode_delivery(&subject, Some(&message.headers), message.payload)?,
            sequence: message.sequence,
        }))
    }

    /// Reads the deliveries of a job, in the order of their targets.
    pub(super) async fn deliveries_of(&self, job: JobId) -> Result<Vec<Delivery>, NatsError> {
        let subjects = self.names.deliveries_of(job);
        let subjects = self.streams.deliveries.info_with_subjects(subjects).await;
        let subjects = subjects.map_err(NatsError::unavailable)?;
        let mut deliveries: Vec<_> = subjects
            .map(async |subject| {
                let (subject, _) = subject.map_err(NatsError::unavailable)?;
                let Some(id) = ResourceNames::delivery_id(&subject) else {
                    return Ok(None);
                };
                let found = self.delivery_at_leader(id).await?;
                Ok::<_, NatsError>(found.map(|found| found.delivery))
            })
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(async |delivery| Ok(delivery))
            .try_collect()
            .await?;
        deliveries.sort_unstable_by_key(|delivery| delivery.id);
        Ok(deliveries)
    }
}

fn encode_header(delivery: &Delivery) -> Result<HeaderMap, NatsError> {
    // Only a clock before 1970 fails. JSON has no line break, which no header may have.
    let json = serde_json::to_string(&StoredDelivery::from(delivery));
    let json = json.map_err(NatsError::unavailable)?;
    let value: HeaderValue = format!("{VERSION}{json}")
        .parse()
        .map_err(NatsError::unavailable)?;
    let mut headers = HeaderMap::new();
    headers.insert(DELIVERY_HEADER, value);
    Ok(headers)
}

/// Decodes the delivery of a subject. `body` is empty if only the headers were read.
pub(super) fn decode_delivery(
    subject: &str,
    headers: Option<&HeaderMap>,
    body: Bytes,
) -> Result<Delivery, NatsError> {
    let unreadable = |why: &'static str| NatsError::unreadable(subject, why);
    let id = ResourceNames::delivery_id(subject);
    let id = id.ok_or_else(|| unreadable("the subject has no id of a delivery"))?;
    let header = headers.and_then(|headers| headers.get(DELIVERY_HEADER));
    let header = header.ok_or_else(|| unreadable("the header is missing"))?;
    let json = header.as_str().strip_prefix(VERSION);
    let json = json.ok_or_else(|| unreadable("unknown version"))?;
    let stored: StoredDelivery =
        serde_json::from_str(json).map_err(|error| NatsError::unreadable(subject, error))?;
    Ok(stored.into_delivery(id, body))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use super::*;
    use crate::{Snapshot, Status, store::CallbackTarget};

    fn delivery(url: &str) -> Delivery {
        let mut job = Snapshot::new(JobId::random(), SystemTime::now());
        job.status = Status::Failed;
        let target = CallbackTarget::new(url, ["job.failed".to_owned()]);
        job.callbacks = Some(Arc::new([target]));
        Delivery::of_end(&job).pop().expect("one delivery")
    }

    #[test]
    fn delivery_survives_its_message() {
        let names = ResourceNames::new("accepted");
        for url in [
            "https://example.com/",
            "https://b\u{fc}cher.example/\r\n?a: b",
        ] {
            let delivery = delivery(url);
            let headers = encode_header(&delivery).expect("a header");
            let subject = names.delivery(delivery.id);
            let decoded = decode_delivery(&subject, Some(&headers), delivery.body.clone());
            assert_eq!(decoded.expect("a delivery"), delivery);
        }
    }

    #[test]
    fn other_messages_are_unreadable() {
        let names = ResourceNames::new("accepted");
        let delivery = delivery("https://example.com/");
        let subject = names.delivery(delivery.id);
        let mut headers = encode_header(&delivery).expect("a header");
        let decode = |subject: &str, headers: &HeaderMap| {
            decode_delivery(subject, Some(headers), Bytes::new())
        };
        assert!(decode(&subject, &headers).is_ok());
        assert!(decode(&names.outbox_lease(), &headers).is_err());
        assert!(decode(&subject, &HeaderMap::new()).is_err());
        headers.insert(DELIVERY_HEADER, "2 {}");
        assert!(decode(&subject, &headers).is_err());
    }
}
