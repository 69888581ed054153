//! What goes on beside the calls: signs of life, records kept, and an eye on the bucket.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::{
    DeliverPolicy,
    push::{Ordered, OrderedConfig},
};
use futures_util::{StreamExt, stream};
use tokio::{
    select,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    NatsError, active::ActiveClaim, jetstream::JetStream, messages::CLAIM, names::SubjectNames,
};

/// How long what a call tells is gathered before it is written.
const GATHER: Duration = Duration::from_millis(200);

/// How often the queue is asked how long it is.
const LOOK: Duration = Duration::from_secs(1);

/// How many records are written at a time.
const AT_ONCE: usize = 32;

/// How long to wait before a watch that broke is made again.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts the tasks of a store. They end with what this returns.
pub(super) async fn start(shared: &Arc<JetStream>) -> Result<JoinSet<()>, NatsError> {
    // Before anybody can wait for anything.
    let changes = watch(shared).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(notice(shared.clone(), changes));
    tasks.spawn(beat(shared.clone()));
    tasks.spawn(keep(shared.clone()));
    tasks.spawn(tend_waiting(shared.clone()));
    if shared.options.max_queued.is_some() {
        tasks.spawn(count(shared.clone()));
    }
    Ok(tasks)
}

/// Gives signs of life of what runs here.
async fn beat(shared: Arc<JetStream>) {
    let mut beats = interval(shared.options.lease / 3);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        for held in shared.all_active() {
            held.beat().await;
        }
    }
}

/// Writes what calls have told, and keeps records from expiring and leases from ending.
async fn keep(shared: Arc<JetStream>) {
    let rest = (shared.options.lease / 8).min(shared.options.retain / 16);
    loop {
        select! {
            () = sleep(rest) => {}
            () = shared.told.notified() => sleep(GATHER.min(rest)).await,
        }
        let due = shared.all_active().into_iter();
        let due: Vec<Arc<ActiveClaim>> = due.filter(|held| held.is_due(&shared)).collect();
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, async |held| {
                if let Err(error) = held.keep(&shared).await {
                    tracing::warn!(%error, id = %held.id, "a job's record is not renewed");
                }
            })
            .await;
    }
}

/// Keeps what belongs to requests that wait from expiring before them, and the queue from keeping them for
/// longer than they wait.
async fn tend_waiting(shared: Arc<JetStream>) {
    loop {
        sleep(shared.quarter()).await;
        if let Err(error) = shared.tend_waiting().await {
            tracing::warn!(
                %error,
                "what belongs to waiting requests is not renewed"
            );
        }
    }
}

/// Asks how many requests are in the queue, as long as that may matter.
async fn count(shared: Arc<JetStream>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if !shared.depth.is_stale() {
            continue;
        }
        let added = shared.depth.added();
        match shared.streams.queue.get_info().await {
            Ok(info) => shared.depth.tell(info.state.messages, added),
            Err(error) => tracing::debug!(%error, "the queue does not tell how long it is"),
        }
    }
}

/// A consumer of all that is written to jobs from now on, without what is in it.
async fn watch(shared: &JetStream) -> Result<Ordered, NatsError> {
    let info = shared.streams.jobs.get_info().await;
    let last = info.map_err(NatsError::unavailable)?.state.last_sequence;
    let config = OrderedConfig {
        deliver_subject: shared.context.client().new_inbox(),
        filter_subject: shared.names.all_jobs(),
        headers_only: true,
        deliver_policy: match last {
            0 => DeliverPolicy::All,
            // The last once more: from a message on it goes on after every interruption.
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        },
        ..OrderedConfig::default()
    };
    let consumer = shared.streams.jobs.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    consumer.messages().await.map_err(NatsError::unavailable)
}

/// Tells who waits for a job that it has changed, and who runs it that it is not theirs any more.
async fn notice(shared: Arc<JetStream>, mut changes: Ordered) {
    loop {
        while let Some(Ok(change)) = changes.next().await {
            let Some(id) = SubjectNames::id(&change.subject) else {
                continue;
            };
            let claim = change
                .headers
                .as_ref()
                .and_then(|headers| headers.get(CLAIM));
            let claim = claim.and_then(|claim| u64::from_str_radix(claim.as_str(), 16).ok());
            let sequence = change.info().map_or(0, |info| info.stream_sequence);
            for held in shared.active(id) {
                match Some(held.claim) == claim {
                    true => {}
                    false if SubjectNames::is_end(&change.subject) => held.ended.cancel(),
                    false => {
                        held.hear(sequence);
                        shared.told.notify_one();
                    }
                }
            }
            shared.interest.tell(id);
        }
        tracing::warn!("the watch of jobs broke");
        changes = loop {
            sleep(PAUSE).await;
            match watch(&shared).await {
                Ok(changes) => break changes,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "the watch of jobs is not back yet"
                    );
                }
            }
        };
        // What went by meanwhile nobody has seen.
        shared.interest.tell_all();
        stream::iter(shared.all_active())
            .for_each_concurrent(AT_ONCE, async |held| match shared.record(held.id).await {
                Ok(Some(found)) if found.record.is_held_by(held.claim) => {}
                Ok(Some(found)) if found.record.is_ended() => held.ended.cancel(),
                Ok(Some(found)) => held.hear(found.sequence),
                Ok(None) | Err(_) => {}
            })
            .await;
    }
}
