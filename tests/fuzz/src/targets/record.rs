//! Records in JetStream: a JSON head, then the body after an empty line. The input is also taken as
//! a whole message.

use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    config::{LinkOrigin, Settings},
    estimate::Estimates,
    job::{JobId, Snapshot},
    monitor::document::linked_document,
    store::nats::{
        envelope::{decode, encode},
        options::NatsOptions,
        record::JobRecord,
        request::QueuedRequest,
    },
};

const SUBJECT: &str = "accepted.queue.x";

/// Checks that any message is read or refused, that what was read is written alike, and that its
/// job has a valid document.
pub fn record(input: &[u8]) {
    let at = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = at.map_or((input, &b""[..]), |at| (&input[..at], &input[at + 2..]));
    let length = u32::try_from(head.len())
        .expect("a short input")
        .to_be_bytes();
    let message = [&[1], &length[..], head, body].concat();
    for message in [Bytes::from(message), Bytes::copy_from_slice(input)] {
        if let Some((request, read)) = round_trip::<QueuedRequest>(&message) {
            assert!(message.ends_with(&read));
            document(&JobRecord::queued(&request));
            if let Ok((_, trailers)) = request.into_head(&NatsOptions::new()) {
                assert!(trailers.is_none_or(|trailers| trailers.len() <= input.len()));
            }
        }
        if let Some((record, _)) = round_trip::<JobRecord>(&message) {
            document(&record);
            if let Some(response) = record.response {
                let shown = response.head().status;
                let (restored, _) = response.into_head().expect("few fields");
                assert_eq!(restored.status(), shown);
            }
        }
    }
}

/// Reads a message, and checks that what was read is written and read again alike.
fn round_trip<T: DeserializeOwned + Serialize>(message: &Bytes) -> Option<(T, Bytes)> {
    let (head, body) = decode::<T>(SUBJECT, message.clone()).ok()?;
    let written = encode(&head, &body);
    let (again, same_body) = decode::<T>(SUBJECT, written.clone()).expect("a message");
    assert_eq!(same_body, body);
    assert_eq!(encode(&again, &body), written);
    Some((head, body))
}

/// Checks the document of a job with this record.
fn document(record: &JobRecord) {
    let id: JobId = "AAAAAAAAAAAAAAAAAAAAAA".parse().expect("an id");
    let job: Snapshot = record.snapshot(id);
    job.teach(&Estimates::new(Duration::ZERO));
    let settings = Settings::default();
    let json = linked_document(LinkOrigin::Document, &id.encode(), &job, &settings);
    let document: Value = serde_json::from_slice(&json).expect("valid JSON");
    assert_eq!(document["status"], job.status.as_str());
    assert_eq!(document["self"], format!("/jobs/{id}"));
    let message = job.progress.message.as_deref();
    assert_eq!(document.get("message").and_then(Value::as_str), message);
}
