//! Lists jobs.

use std::{collections::HashSet, pin::pin, time::Duration};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::{
    envelope::decode, error::NatsError, index::OwnerEntry, jetstream::JetStream, messages,
    names::ResourceNames,
};
use crate::{Cursor, Filter, Page, Snapshot, store::Lookup};

/// The number of concurrent look-ups.
const LOOKUP_CONCURRENCY: usize = 32;

/// The number of entries per fetch.
const FETCH_SIZE: usize = 500;

/// The time that the server may take to send each entry.
const ENTRY_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence after which a list asks whether an entry is left.
const SILENCE: Duration = Duration::from_millis(100);

/// The idle time after which the server removes the consumer of a list.
const CONSUMER_EXPIRY: Duration = Duration::from_secs(30);

/// Lists the jobs that match a filter, newest first.
pub(super) async fn list(jetstream: &JetStream, filter: &Filter) -> Result<Page, NatsError> {
    let mut cursors = match filter.get_owner() {
        Some(owner) => read_cursors(jetstream, jetstream.names.all_owned(&owner)).await?,
        None => all_cursors(jetstream).await?,
    };
    // A job that moved from the queue to the bucket in between is there twice.
    cursors.sort_unstable_by(|one, other| other.cmp(one));
    cursors.dedup();
    let after = filter.get_after();
    cursors.retain(|cursor| after.is_none_or(|after| *cursor < after));
    let lookups = cursors.into_iter().map(|cursor| async move {
        let lookup = jetstream.lookup(cursor.id()).await?;
        Ok::<_, NatsError>((cursor, lookup))
    });
    let mut lookups = stream::iter(lookups).buffered(LOOKUP_CONCURRENCY);
    let mut jobs: Vec<(Cursor, Snapshot)> = Vec::new();
    let mut next = None;
    while let Some(lookup) = lookups.next().await {
        let Some((cursor, Lookup::Found(job))) = skip_unreadable(lookup)? else {
            continue;
        };
        if !filter.matches(&job) {
            continue;
        }
        if jobs.len() == filter.get_limit() {
            next = jobs.last().map(|(cursor, _)| *cursor);
            break;
        }
        jobs.push((cursor, *job));
    }
    let jobs = jobs.into_iter().map(|(_, job)| job).collect();
    Ok(Page::new(jobs, next))
}

/// Returns the cursors of all jobs: those with a record, and those that wait in the queue.
async fn all_cursors(jetstream: &JetStream) -> Result<Vec<Cursor>, NatsError> {
    let mut cursors = read_cursors(jetstream, jetstream.names.all_jobs()).await?;
    let mut entries = pin!(jetstream.queue_entries().await?);
    while let Some(entry) = entries.next().await {
        let Some((id, entry)) = skip_unreadable(entry)? else {
            continue;
        };
        let created_at = entry.request.details.created_at;
        cursors.push(Cursor::from_unix_millis(created_at, id));
    }
    Ok(cursors)
}

/// Turns an unreadable job into `None`, so that the list has at least the others.
fn skip_unreadable<T>(read: Result<T, NatsError>) -> Result<Option<T>, NatsError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ NatsError::Unreadable { .. }) => {
            tracing::warn!(%error, "left an unreadable job out of a list");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads the cursors from all subjects of the bucket that match `filter_subject`: records of jobs,
/// or entries of an owner's list.
///
/// Fetches until nothing new is left, since the number of entries can shrink by expiry meanwhile.
/// Renewed entries come again, so they do not count as new: they would keep the list from its end.
///
/// The server counts an entry that is renewed during a fetch twice, and then waits for one that
/// never comes. So a silent fetch also ends if the stream has no entry beyond the last one.
async fn read_cursors(
    jetstream: &JetStream,
    filter_subject: String,
) -> Result<Vec<Cursor>, NatsError> {
    let config = pull::Config {
        filter_subject: filter_subject.clone(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        inactive_threshold: CONSUMER_EXPIRY,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = jetstream.streams.jobs.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    let mut cursors = Vec::new();
    let mut seen = HashSet::new();
    let mut last_sequence = 0;
    'fetches: loop {
        let fetch = consumer.fetch().max_messages(FETCH_SIZE).messages().await;
        let mut fetched = fetch.map_err(NatsError::unavailable)?;
        let (mut count, seen_before) = (0, seen.len());
        let mut entry_deadline = Instant::now() + ENTRY_TIMEOUT;
        loop {
            let Ok(next) = timeout(SILENCE, fetched.next()).await else {
                let last = messages::last(&jetstream.streams.jobs, &filter_subject).await?;
                if last.is_none_or(|last| last.sequence <= last_sequence) {
                    // All entries have been delivered.
                    break 'fetches;
                }
                if Instant::now() > entry_deadline {
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
            entry_deadline = Instant::now() + ENTRY_TIMEOUT;
            count += 1;
            let Some(id) = ResourceNames::job_id(&message.subject) else {
                continue;
            };
            seen.insert(id);
            // A record has the field of a list entry, too.
            let entry = decode(&message.subject, message.payload.clone());
            if let Some((OwnerEntry { created_at }, _)) = skip_unreadable(entry)? {
                cursors.push(Cursor::from_unix_millis(created_at, id));
            }
        }
        if count < FETCH_SIZE && seen.len() == seen_before {
            break;
        }
    }
    // If this fails, the server removes the consumer after `CONSUMER_EXPIRY`.
    let name = &consumer.cached_info().name;
    if let Err(error) = jetstream.streams.jobs.delete_consumer(name).await {
        tracing::debug!(%error, "failed to delete the consumer of a list");
    }
    Ok(cursors)
}
