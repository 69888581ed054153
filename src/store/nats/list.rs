//! Lists jobs.

use std::pin::pin;

use futures_util::{StreamExt, stream};

use super::{
    envelope::decode,
    error::NatsError,
    index::OwnerEntry,
    jetstream::JetStream,
    names::ResourceNames,
    scan::{scan, skip_unreadable},
};
use crate::{Cursor, Filter, Page, Snapshot, store::Lookup};

/// The number of concurrent look-ups.
const LOOKUP_CONCURRENCY: usize = 32;

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

/// Reads the cursors from all subjects of the bucket that match `filter_subject`: records of jobs,
/// or entries of an owner's list.
async fn read_cursors(
    jetstream: &JetStream,
    filter_subject: String,
) -> Result<Vec<Cursor>, NatsError> {
    let mut cursors = Vec::new();
    scan(&jetstream.streams.jobs, filter_subject, false, |message| {
        let Some(id) = ResourceNames::job_id(&message.subject) else {
            return Ok(None);
        };
        // A record has the field of a list entry, too.
        let entry = decode(&message.subject, message.payload.clone());
        if let Some((OwnerEntry { created_at }, _)) = skip_unreadable(entry)? {
            cursors.push(Cursor::from_unix_millis(created_at, id));
        }
        Ok(Some(id))
    })
    .await?;
    Ok(cursors)
}
