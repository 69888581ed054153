//! Notifies receivers while a job runs.

use std::{
    future::{poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::send::{Notification, Sender};
use crate::{
    job::{CallbackTarget, Snapshot, Status},
    store::{DeliveryId, notification},
    webhook::EventType,
};

const STARTED: &str = EventType::JobStarted.as_str();
const PROGRESS: &str = EventType::JobProgress.as_str();

/// The minimum time between two notifications of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Returns `true` if a target is notified while the job runs.
pub(super) fn is_live(target: &CallbackTarget) -> bool {
    target.wants(STARTED) || target.wants(PROGRESS)
}

/// Notifies the target with this number of the job's start and progress, until the job has ended.
///
/// A notification is sent once at most, and the newest progress replaces any before it. While the
/// receiver is busy, the newest one waits.
pub(super) async fn follow(
    sender: Arc<Sender>,
    changes: impl Stream<Item = Snapshot>,
    target: CallbackTarget,
    number: u32,
) {
    let mut changes = pin!(changes);
    let mut is_started = false;
    let mut last_progress = Default::default();
    // A job whose state may still have to be sent.
    let mut waiting: Option<Snapshot> = None;
    loop {
        let job = match waiting.take() {
            None => next(changes.as_mut()).await,
            Some(job) => select! {
                biased;
                newer = next(changes.as_mut()) => newer,
                () = ready(()) => Some(job),
            },
        };
        let Some(job) = job else {
            return;
        };
        if job.status != Status::Running {
            continue;
        }
        let event = if !is_started && target.wants(STARTED) {
            STARTED
        } else if target.wants(PROGRESS) && job.progress != last_progress {
            PROGRESS
        } else {
            continue;
        };
        let began = Instant::now();
        let id = DeliveryId::new(job.id, number);
        let body = notification(&job, event, SystemTime::now(), &target.monitor);
        let notification = Notification {
            id: format!("{id}_{}", job.revision),
            url: &target.url,
            is_get: target.is_get,
            body,
        };
        let is_sent = sender.send_once(notification).await;
        if event == STARTED {
            is_started |= is_sent;
        } else if is_sent {
            last_progress = job.progress.clone();
        }
        if event == PROGRESS || !is_sent {
            sleep_until(began + PROGRESS_INTERVAL).await;
        }
        waiting = Some(job);
    }
}

async fn next<S: Stream>(mut changes: Pin<&mut S>) -> Option<S::Item> {
    poll_fn(|cx| changes.as_mut().poll_next(cx)).await
}
