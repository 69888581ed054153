//! The jobs there are.

use std::{pin::pin, time::Duration};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::{
    NatsError, envelope::open, jetstream::JetStream, names::SubjectNames, record::OwnerEntry,
};
use crate::{
    job::{Cursor, Filter, Page, Snapshot},
    store::Lookup,
};

/// How many jobs are looked up at a time.
const AT_ONCE: usize = 32;

/// How many entries are fetched at a time.
const AT_A_TIME: usize = 500;

/// How long the server may take for each.
const GRACE: Duration = Duration::from_secs(5);

/// After how long it forgets who fetches no more.
const ABANDONED: Duration = Duration::from_secs(30);

pub(super) async fn list(shared: &JetStream, filter: &Filter) -> Result<Page, NatsError> {
    let mut places = match filter.owner {
        Some(owner) => places(shared, shared.names.all_listed(&owner)).await?,
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
    while let Some(looked_up) = looked_up.next().await {
        let Some((place, Lookup::Found(job))) = readable(looked_up)? else {
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

/// All jobs: those of the bucket, and those that wait.
async fn everywhere(shared: &JetStream) -> Result<Vec<Cursor>, NatsError> {
    let mut all = places(shared, shared.names.all_jobs()).await?;
    let mut waiting = pin!(shared.all_waiting().await?);
    while let Some(waiting) = waiting.next().await {
        let Some((id, waiting)) = readable(waiting)? else {
            continue;
        };
        let created_at = waiting.asked.created_at;
        all.push(Cursor { created_at, id });
    }
    Ok(all)
}

/// Leaves out what this version cannot read: a list of the others is better than none.
fn readable<T>(read: Result<T, NatsError>) -> Result<Option<T>, NatsError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ NatsError::Unreadable { .. }) => {
            tracing::warn!(
                %error,
                "left out of a list"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the newest entry of each subject in the bucket tells of its job's place, be it a record or one of an owner's
/// list; of the entries nothing is kept.
///
/// They are fetched, some at a time, until there are no more: what expires in between is not waited for.
async fn places(shared: &JetStream, subjects: String) -> Result<Vec<Cursor>, NatsError> {
    let config = pull::Config {
        filter_subject: subjects,
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        inactive_threshold: ABANDONED,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = shared.streams.jobs.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    let mut places = Vec::new();
    loop {
        let fetching = consumer.fetch().max_messages(AT_A_TIME).messages().await;
        let mut fetched = fetching.map_err(NatsError::unavailable)?;
        let mut count = 0;
        while let Some(message) = timeout(GRACE, fetched.next())
            .await
            .map_err(NatsError::unavailable)?
        {
            let message = message.map_err(NatsError::Unavailable)?;
            count += 1;
            let Some(id) = SubjectNames::id(&message.subject) else {
                continue;
            };
            let told = open(&message.subject, message.payload.clone());
            if let Some((OwnerEntry { created_at }, _)) = readable(told)? {
                places.push(Cursor { created_at, id });
            }
        }
        if count == 0 {
            break;
        }
    }
    // Else it goes by itself, a while later.
    let name = &consumer.cached_info().name;
    if let Err(error) = shared.streams.jobs.delete_consumer(name).await {
        tracing::debug!(%error, "a list's consumer is left");
    }
    Ok(places)
}
