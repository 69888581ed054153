//! Reads the last message of each subject that matches a filter.

use std::{collections::HashSet, hash::Hash, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::{error::NatsError, messages};

/// The number of messages per fetch.
const FETCH_SIZE: usize = 500;

/// The time that the server may take to send each message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence after which a scan asks whether a message is left.
const SILENCE: Duration = Duration::from_millis(100);

/// The idle time after which the server removes the consumer of a scan.
const CONSUMER_EXPIRY: Duration = Duration::from_secs(30);

/// Calls `read` with the last message of each subject that matches `filter_subject`, and with later
/// ones that are written meanwhile. `read` returns the key of the entry, if the message has one.
///
/// Fetches until nothing new is left, since the number of messages can shrink by expiry meanwhile.
/// Renewed entries come again, so they do not count as new: they would keep the scan from its end.
///
/// The server counts an entry that is renewed during a fetch twice, and then waits for one that
/// never comes. So a silent fetch also ends if the stream has no message beyond the last one.
pub(super) async fn scan<K: Eq + Hash>(
    stream: &Stream<()>,
    filter_subject: String,
    headers_only: bool,
    mut read: impl FnMut(&Message) -> Result<Option<K>, NatsError>,
) -> Result<(), NatsError> {
    let config = pull::Config {
        filter_subject: filter_subject.clone(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        inactive_threshold: CONSUMER_EXPIRY,
        memory_storage: true,
        headers_only,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    let mut seen = HashSet::new();
    let mut last_sequence = 0;
    'fetches: loop {
        let fetch = consumer.fetch().max_messages(FETCH_SIZE).messages().await;
        let mut fetched = fetch.map_err(NatsError::unavailable)?;
        let (mut count, seen_before) = (0, seen.len());
        let mut deadline = Instant::now() + MESSAGE_TIMEOUT;
        loop {
            let Ok(next) = timeout(SILENCE, fetched.next()).await else {
                let last = messages::last(stream, &filter_subject).await?;
                if last.is_none_or(|last| last.sequence <= last_sequence) {
                    // All messages have been delivered.
                    break 'fetches;
                }
                if Instant::now() > deadline {
                    return Err(NatsError::unavailable(
                        "the server sends no entry of a list",
                    ));
                }
                continue;
            };
            let Some(message) = next else { break };
            let message = message.map_err(NatsError::Unavailable)?;
            let info = message.info().map_err(NatsError::Unavailable)?;
            last_sequence = info.stream_sequence;
            deadline = Instant::now() + MESSAGE_TIMEOUT;
            count += 1;
            seen.extend(read(&message)?);
        }
        if count < FETCH_SIZE && seen.len() == seen_before {
            break;
        }
    }
    // If this fails, the server removes the consumer after `CONSUMER_EXPIRY`.
    let name = &consumer.cached_info().name;
    if let Err(error) = stream.delete_consumer(name).await {
        tracing::debug!(%error, "failed to delete the consumer of a list");
    }
    Ok(())
}

/// Turns an unreadable entry into `None`, so that the list has at least the others.
pub(super) fn skip_unreadable<T>(read: Result<T, NatsError>) -> Result<Option<T>, NatsError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ NatsError::Unreadable { .. }) => {
            tracing::warn!(%error, "left an unreadable entry out of a list");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
