//! Watches the bucket for changes that other processes make to jobs.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::{
    DeliverPolicy,
    push::{Ordered, OrderedConfig},
};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::{
    error::NatsError, jetstream::JetStream, messages::CLAIM_HEADER, names::ResourceNames,
    process::ProcessState,
};

/// The number of concurrent look-ups after an interruption.
const LOOKUP_CONCURRENCY: usize = 32;

/// The delay before a broken watch is restarted.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// Creates a consumer of all future writes to job records, without their payload.
pub(super) async fn open(jetstream: &JetStream) -> Result<Ordered, NatsError> {
    let jobs = &jetstream.streams.jobs;
    let info = jobs.get_info().await;
    let last = info.map_err(NatsError::unavailable)?.state.last_sequence;
    let config = OrderedConfig {
        deliver_subject: jetstream.context.client().new_inbox(),
        filter_subject: jetstream.names.all_jobs(),
        headers_only: true,
        deliver_policy: match last {
            0 => DeliverPolicy::All,
            // Start at the last message instead of after it: an ordered consumer that has received
            // a message resumes there after an interruption.
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        },
        ..OrderedConfig::default()
    };
    let consumer = jobs.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    consumer.messages().await.map_err(NatsError::unavailable)
}

/// Notifies the subscribers and the claims of changed jobs, for as long as the store exists.
pub(super) async fn run(process: Arc<ProcessState>, mut changes: Ordered) {
    loop {
        while let Some(Ok(change)) = changes.next().await {
            let Some(id) = ResourceNames::job_id(&change.subject) else {
                continue;
            };
            let headers = change.headers.as_ref();
            let writer = headers.and_then(|headers| headers.get(CLAIM_HEADER));
            let writer = writer.and_then(|claim| u64::from_str_radix(claim.as_str(), 16).ok());
            let sequence = change.info().map_or(0, |info| info.stream_sequence);
            for active in process.claims.of_job(id) {
                if Some(active.claim) == writer {
                    continue;
                }
                if ResourceNames::is_end(&change.subject) {
                    active.lost.cancel();
                } else {
                    active.note_write(sequence);
                    process.claims.write_requested.notify_one();
                }
            }
            process.subscribers.notify(id);
        }
        tracing::warn!("lost the watch of jobs");
        changes = loop {
            sleep(RESTART_DELAY).await;
            match open(&process.jetstream).await {
                Ok(changes) => break changes,
                Err(error) => tracing::warn!(%error, "failed to restart the watch of jobs"),
            }
        };
        // Changes during the interruption were missed.
        process.subscribers.notify_all();
        check_claims(&process).await;
    }
}

/// Finds out which claims of this process were lost while the watch was down.
async fn check_claims(process: &ProcessState) {
    stream::iter(process.claims.all())
        .for_each_concurrent(LOOKUP_CONCURRENCY, async |active| {
            match process.jetstream.record(active.id).await {
                Ok(Some(found)) if found.record.is_held_by(active.claim) => {}
                Ok(Some(found)) if found.record.is_ended() => active.lost.cancel(),
                Ok(Some(found)) => active.note_write(found.sequence),
                // The next write of the claim notices.
                Ok(None) | Err(_) => {}
            }
        })
        .await;
}
