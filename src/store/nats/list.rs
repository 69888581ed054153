//! The jobs there are.

use std::pin::pin;

use async_nats::jetstream::consumer::{DeliverPolicy, push::OrderedConfig};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    NatsError,
    envelope::open,
    log::Entry,
    names::Names,
    record::Listed,
    shared::{Shared, found},
};
use crate::{
    job::{JobId, Snapshot},
    list::{Cursor, Filter, Page},
    owner::Owner,
    store::Lookup,
};

/// How many jobs are looked up at a time.
const AT_ONCE: usize = 32;

pub(super) async fn list(shared: &Shared, filter: &Filter) -> Result<Page, NatsError> {
    let mut places = match filter.owner {
        Some(owner) => listed(shared, &owner).await?,
        None => everywhere(shared).await?,
    };
    // Of a job that went from the queue to the bucket meanwhile there are two.
    places.sort_unstable_by(|one, other| other.cmp(one));
    places.dedup();
    places.retain(|place| filter.after.is_none_or(|after| *place < after));
    let looking = places.into_iter().map(|place| async move {
        let lookup = shared.lookup(place.id).await?;
        Ok::<_, NatsError>((place, lookup))
    });
    let mut looked_up = stream::iter(looking).buffered(AT_ONCE);
    let mut jobs: Vec<(Cursor, Snapshot)> = Vec::new();
    let mut next = None;
    while let Some((place, lookup)) = looked_up.try_next().await? {
        let Lookup::Found(job) = lookup else {
            continue;
        };
        if !filter.admits(&job) {
            continue;
        }
        if jobs.len() == filter.limit {
            next = jobs.last().map(|(place, _)| *place);
            break;
        }
        jobs.push((place, *job));
    }
    let jobs = jobs.into_iter().map(|(_, job)| job).collect();
    Ok(Page { jobs, next })
}

/// An owner's jobs, by its list.
async fn listed(shared: &Shared, owner: &Owner) -> Result<Vec<Cursor>, NatsError> {
    let entries = entries(shared, shared.names.all_listed(owner)).await?;
    places(entries, |entry| {
        let (listed, _) = open::<Listed>(&entry.subject, entry.payload)?;
        Ok(listed.created_at)
    })
}

/// All jobs: those of the bucket, and those that wait.
async fn everywhere(shared: &Shared) -> Result<Vec<Cursor>, NatsError> {
    let entries = entries(shared, shared.names.all_jobs()).await?;
    let mut all = places(entries, |entry| Ok(found(entry)?.record.created_at))?;
    let mut waiting = pin!(shared.all_waiting().await?);
    while let Some((id, waiting)) = waiting.try_next().await? {
        let created_at = waiting.asked.created_at;
        all.push(Cursor { created_at, id });
    }
    Ok(all)
}

fn places(
    entries: Vec<Entry>,
    created_at: impl Fn(Entry) -> Result<u64, NatsError>,
) -> Result<Vec<Cursor>, NatsError> {
    let places = entries.into_iter().filter_map(|entry| {
        let id: JobId = Names::id(&entry.subject)?;
        Some(created_at(entry).map(|created_at| Cursor { created_at, id }))
    });
    places.collect()
}

/// The newest entry of each subject in the bucket.
async fn entries(shared: &Shared, subjects: String) -> Result<Vec<Entry>, NatsError> {
    let config = OrderedConfig {
        deliver_subject: shared.context.client().new_inbox(),
        filter_subject: subjects,
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..OrderedConfig::default()
    };
    let consumer = shared.streams.jobs.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.map_err(NatsError::unavailable)?;
    let mut entries = Vec::new();
    while left > 0 {
        let Some(message) = messages.next().await else {
            break;
        };
        let message = message.map_err(NatsError::unavailable)?;
        let info = message.info().map_err(NatsError::Unavailable)?;
        (left, _) = (info.pending, info.stream_sequence);
        entries.push(Entry {
            subject: message.subject.as_str().to_owned(),
            sequence: info.stream_sequence,
            payload: message.payload.clone(),
        });
    }
    Ok(entries)
}
