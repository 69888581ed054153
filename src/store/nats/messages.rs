//! Publishes, reads and deletes single messages.

use std::{error::Error as _, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        context::{Context, PublishErrorKind},
        message::PublishMessage,
        stream::{DeleteMessageErrorKind, RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;

use super::{error::NatsError, retry::Retry};

/// The header with the claim under which a record was written.
///
/// The watch of the bucket receives only headers, and recognizes its process's own writes by it.
pub(super) const CLAIM_HEADER: &str = "Tower-Accepted-Claim";

/// "wrong last sequence": which of the two codes is sent depends on the server's version.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// "maximum messages exceeded" and other failures of the stream's storage.
const STORE_FAILED: u64 = 10077;

/// "message size exceeds maximum allowed": the stream has a limit of its own.
const MESSAGE_TOO_LARGE: u64 = 10054;

/// The reason why a write failed.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The subject is not at the expected sequence. The other message is another process's, or an
    /// earlier attempt of the same write whose acknowledgement was lost.
    Conflict,
    /// The stream is full.
    Full,
    /// The message exceeds what the server or the stream takes.
    TooLarge,
    /// No acknowledgement came, so the message may or may not be stored.
    Unknown(NatsError),
}

impl WriteError {
    /// Converts to the public error, for callers that handle no particular case.
    pub(super) fn into_error(self) -> NatsError {
        match self {
            Self::Conflict => NatsError::unavailable("another process wrote to the subject"),
            Self::Full => NatsError::unavailable("the stream is full"),
            Self::TooLarge => NatsError::TooLarge,
            Self::Unknown(error) => error,
        }
    }
}

/// A message as read from a stream.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// The time of the write at the leader, in milliseconds since the Unix epoch.
    pub(super) written_at: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// Returns the header of a record that is written under this claim.
pub(super) fn claim_header(claim: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CLAIM_HEADER, format!("{claim:016x}"));
    headers
}

/// Publishes a message and waits until the stream has stored it. Returns its sequence.
///
/// With `expected`, the write succeeds only if the subject's last message has that sequence; 0
/// means that there is none.
///
/// A write without an answer is repeated until `patience` has passed, so the stream may store it
/// twice. That is harmless with `expected`, and in streams that keep one message per subject.
pub(super) async fn publish(
    context: &Context,
    subject: &str,
    expected: Option<u64>,
    headers: Option<&HeaderMap>,
    payload: &Bytes,
    patience: Duration,
) -> Result<u64, WriteError> {
    let mut retry = Retry::within(patience);
    let mut may_be_stored = false;
    loop {
        let error = match publish_once(context, subject, expected, headers, payload).await {
            Err(WriteError::Unknown(error)) => error,
            // An earlier attempt may have taken the last free slot.
            Err(WriteError::Full) if may_be_stored => WriteError::Full.into_error(),
            result => return result,
        };
        may_be_stored = true;
        let waited = retry.wait(error, subject).await;
        waited.map_err(WriteError::Unknown)?;
    }
}

async fn publish_once(
    context: &Context,
    subject: &str,
    expected: Option<u64>,
    headers: Option<&HeaderMap>,
    payload: &Bytes,
) -> Result<u64, WriteError> {
    let mut message = PublishMessage::build().payload(payload.clone());
    if let Some(headers) = headers {
        message = message.headers(headers.clone());
    }
    if let Some(expected) = expected {
        message = message.expected_last_subject_sequence(expected);
    }
    let sent = context.send_publish(subject.to_owned(), message).await;
    let acknowledged = match sent {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    acknowledged.map(|ack| ack.sequence).map_err(|error| {
        let code = error
            .source()
            .and_then(|source| source.downcast_ref::<jetstream::Error>())
            .map(|error| error.error_code().0);
        match (error.kind(), code) {
            (PublishErrorKind::WrongLastSequence, _) => WriteError::Conflict,
            (_, Some(code)) if WRONG_LAST_SEQUENCE.contains(&code) => WriteError::Conflict,
            (_, Some(STORE_FAILED)) => WriteError::Full,
            (PublishErrorKind::MaxPayloadExceeded, _) | (_, Some(MESSAGE_TOO_LARGE)) => {
                WriteError::TooLarge
            }
            _ => WriteError::Unknown(NatsError::unavailable(error)),
        }
    })
}

/// Reads the last message of a subject from the stream's leader.
///
/// A leader elected a moment ago may miss the newest messages; see
/// [`Barrier`](super::barrier::Barrier).
pub(super) async fn last(
    stream: &Stream<()>,
    subject: &str,
) -> Result<Option<StoredMessage>, NatsError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(StoredMessage {
            subject: message.subject.into_string(),
            sequence: message.sequence,
            written_at: u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
            headers: message.headers,
            payload: message.payload,
        })),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(NatsError::unavailable(error)),
    }
}

/// Deletes a message, on a majority of the replicas. A missing message counts as deleted.
pub(super) async fn delete(stream: &Stream<()>, sequence: u64) -> Result<(), NatsError> {
    match stream.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            DeleteMessageErrorKind::JetStream(answer) if is_missing(&answer) => Ok(()),
            _ => Err(NatsError::unavailable(error)),
        },
    }
}

/// Returns `true` if a delete failed because the message does not exist.
///
/// Servers send the same code if their storage fails, with texts that differ between versions.
fn is_missing(answer: &jetstream::Error) -> bool {
    const TEXTS: [&str; 3] = ["no message found", "message not found", "deleted message"];
    match answer.error_code() {
        ErrorCode::NO_MESSAGE_FOUND | ErrorCode::SEQUENCE_NOT_FOUND => true,
        ErrorCode::STREAM_MESSAGE_DELETE_FAILED => {
            let text = answer.to_string();
            TEXTS.iter().any(|known| text.contains(known))
        }
        _ => false,
    }
}
