//! Writes that say what they expect to be there, and reads from the leader.

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
use tokio::time::{Instant, sleep};

use super::NatsError;

/// SubjectNames the claim that a job was written under, so that who watches for others need not read it.
pub(super) const CLAIM: &str = "Tower-Accepted-Claim";

/// The subject is at another sequence than was expected; which of its two codes, the server's version
/// says.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// "maximum messages exceeded" and its like.
const STORE_FAILED: u64 = 10077;

/// "message size exceeds maximum allowed": the stream's own limit, should it have one.
const EXCEEDS_MAXIMUM: u64 = 10054;

/// How long to wait before a write is repeated.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why nothing was written, as far as is known.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Something else is there than was expected: by somebody else, or by an earlier attempt of this
    /// write whose answer was lost.
    Conflict,
    /// The stream is full.
    Full,
    /// It is more than the servers take in one message.
    TooLarge,
    /// It may have been written or not.
    Unknown(NatsError),
}

/// What was read.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// When it was written, by the leader's clock, in milliseconds since the epoch of Unix.
    pub(super) written: u64,
    pub(super) payload: Bytes,
}

impl WriteError {
    /// What it is where nothing but an error comes of it.
    pub(super) fn into_error(self) -> NatsError {
        match self {
            Self::Conflict => NatsError::unavailable("something else was written there"),
            Self::Full => NatsError::unavailable("the stream is full"),
            Self::TooLarge => NatsError::TooLarge,
            Self::Unknown(error) => error,
        }
    }
}

/// How often and for how long what has failed is repeated.
pub(super) struct Retry {
    end: Option<Instant>,
    pause: Duration,
}

impl Retry {
    /// Until `patience` is over; one beyond the clock's end has none.
    pub(super) fn until(patience: Duration) -> Self {
        Self {
            end: Instant::now().checked_add(patience),
            pause: PAUSE,
        }
    }

    /// Waits before it is repeated; gives the error back where it is not.
    pub(super) async fn after(&mut self, error: NatsError, subject: &str) -> Result<(), NatsError> {
        if self.end.is_some_and(|end| Instant::now() >= end) {
            return Err(error);
        }
        match self.pause < LONGEST_PAUSE {
            true => tracing::debug!(%error, subject, "repeated"),
            false => tracing::warn!(%error, subject, "repeated, for a while now"),
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Writes, and waits for the stream to have it. Until `patience` is over what gets no answer is repeated, and is there
/// twice perhaps: once only where it is told what to expect, or where a stream keeps the last of each subject.
pub(super) async fn write(
    context: &Context,
    subject: &str,
    expected: Option<u64>,
    claim: Option<u64>,
    payload: &Bytes,
    patience: Duration,
) -> Result<u64, WriteError> {
    let mut repeating = Retry::until(patience);
    let mut is_unknown = false;
    loop {
        let error = match write_once(context, subject, expected, claim, payload).await {
            Err(WriteError::Unknown(error)) => error,
            // It may have been written before, into the last place there was.
            Err(WriteError::Full) if is_unknown => WriteError::Full.into_error(),
            done => return done,
        };
        is_unknown = true;
        let repeated = repeating.after(error, subject).await;
        repeated.map_err(WriteError::Unknown)?;
    }
}

async fn write_once(
    context: &Context,
    subject: &str,
    expected: Option<u64>,
    claim: Option<u64>,
    payload: &Bytes,
) -> Result<u64, WriteError> {
    let mut publish = PublishMessage::build().payload(payload.clone());
    if let Some(claim) = claim {
        let mut headers = HeaderMap::new();
        headers.insert(CLAIM, format!("{claim:016x}"));
        publish = publish.headers(headers);
    }
    if let Some(expected) = expected {
        publish = publish.expected_last_subject_sequence(expected);
    }
    let sent = context.send_publish(subject.to_owned(), publish).await;
    let acknowledged = match sent {
        Ok(acknowledged) => acknowledged.await,
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
            (PublishErrorKind::MaxPayloadExceeded, _) | (_, Some(EXCEEDS_MAXIMUM)) => {
                WriteError::TooLarge
            }
            _ => WriteError::Unknown(NatsError::unavailable(error)),
        }
    })
}

/// The last message of a subject, as the leader of the stream has it.
pub(super) async fn last(
    stream: &Stream<()>,
    subject: &str,
) -> Result<Option<StoredMessage>, NatsError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(StoredMessage {
            subject: message.subject.into_string(),
            sequence: message.sequence,
            written: u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0),
            payload: message.payload,
        })),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(NatsError::unavailable(error)),
    }
}

/// Removes a message; one that is gone already is as good. Answered, it is removed on a majority of the
/// replicas.
pub(super) async fn delete(stream: &Stream<()>, sequence: u64) -> Result<(), NatsError> {
    match stream.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            DeleteMessageErrorKind::JetStream(answer) if is_not_there(&answer) => Ok(()),
            _ => Err(NatsError::unavailable(error)),
        },
    }
}

/// Whether it is not removed for there being no such message. Servers have one code for that and for a
/// store that fails, and texts that differ with their version.
fn is_not_there(answer: &jetstream::Error) -> bool {
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
