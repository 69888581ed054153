//! The background tasks of a store: leases, records, the lengths of streams and the watch of jobs.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::stream::Stream;
use futures_util::{StreamExt, stream};
use tokio::{
    select,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    active::ActiveClaim, depth::StreamDepth, error::NatsError, process::ProcessState, watch,
};

/// The time over which reports of calls are merged before they are written.
const REPORT_DELAY: Duration = Duration::from_millis(200);

/// The interval of polling the length of a stream.
const DEPTH_INTERVAL: Duration = Duration::from_secs(1);

/// The number of records that are written concurrently.
const WRITE_CONCURRENCY: usize = 32;

/// Starts the tasks of a store. Dropping the set stops them.
pub(super) async fn start(process: &Arc<ProcessState>) -> Result<JoinSet<()>, NatsError> {
    // The watch must be open before the first subscriber can wait for a change.
    let changes = watch::open(&process.jetstream).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::run(process.clone(), changes));
    tasks.spawn(extend_ack_deadlines(process.clone()));
    tasks.spawn(write_records(process.clone()));
    tasks.spawn(refresh_queue(process.clone()));
    tasks.spawn(renew_outputs(process.clone()));
    if process.jetstream.options.max_queued.is_some() {
        tasks.spawn(poll_depth(process.clone(), |process| {
            (&process.queue_depth, &process.jetstream.streams.queue)
        }));
    }
    if process.jetstream.options.max_keys.is_some() {
        tasks.spawn(poll_depth(process.clone(), |process| {
            (&process.key_depth, &process.jetstream.streams.keys)
        }));
    }
    Ok(tasks)
}

/// Renews the leases of requests that the queue delivered, three times per lease.
async fn extend_ack_deadlines(process: Arc<ProcessState>) {
    let mut ticks = interval(process.jetstream.options.lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for active in process.claims.all() {
            active.extend_ack_deadline().await;
        }
    }
}

/// Writes reports of calls, and rewrites records before they or the leases in them expire.
async fn write_records(process: Arc<ProcessState>) {
    let jetstream = &process.jetstream;
    let options = &jetstream.options;
    let period = (options.lease / 8).min(options.retain / 16);
    loop {
        select! {
            () = sleep(period) => {}
            () = process.claims.write_requested.notified() => {
                sleep(REPORT_DELAY.min(period)).await;
            }
        }
        let due = process.claims.all().into_iter();
        let due: Vec<Arc<ActiveClaim>> = due.filter(|claim| claim.needs_write(jetstream)).collect();
        stream::iter(due)
            .for_each_concurrent(WRITE_CONCURRENCY, async |active| {
                if let Err(error) = active.write_pending(jetstream).await {
                    tracing::warn!(%error, id = %active.id, "failed to renew job record");
                }
            })
            .await;
    }
}

/// Refreshes the records of queued requests.
async fn refresh_queue(process: Arc<ProcessState>) {
    let jetstream = &process.jetstream;
    loop {
        sleep(jetstream.refresh_interval()).await;
        if let Err(error) = jetstream.refresh_queue().await {
            tracing::warn!(%error, "failed to refresh the records of queued requests");
        }
    }
}

/// Writes parts of the outputs of running calls again before they expire.
async fn renew_outputs(process: Arc<ProcessState>) {
    let jetstream = &process.jetstream;
    let max_age = jetstream.options.retain / 2;
    loop {
        sleep(max_age / 2).await;
        for active in process.claims.all() {
            let Some((count, age)) = active.published() else {
                continue;
            };
            if age > max_age
                && let Err(error) = jetstream
                    .renew_parts(active.output_id(), count, max_age)
                    .await
            {
                tracing::warn!(%error, id = %active.id, "failed to renew the output of a job");
            }
        }
    }
}

/// Polls the length of a stream while the count may be too high.
async fn poll_depth(
    process: Arc<ProcessState>,
    of: fn(&ProcessState) -> (&StreamDepth, &Stream<()>),
) {
    let (depth, stream) = of(&process);
    let mut ticks = interval(DEPTH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !depth.is_stale() {
            continue;
        }
        let added = depth.added();
        match stream.get_info().await {
            Ok(info) => depth.record_poll(info.state.messages, added),
            Err(error) => tracing::debug!(%error, "failed to poll the length of a stream"),
        }
    }
}
