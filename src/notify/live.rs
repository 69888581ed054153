//! Notifies receivers while a job runs.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use tokio::time::{Instant, sleep_until};

use super::send::{Notification, Sender};
use crate::{
    job::{CallbackTarget, Snapshot, Status},
    store::{DeliveryId, notification, receiver},
};

const STARTED: &str = "job.started";
const PROGRESS: &str = "job.progress";

/// The minimum time between two notifications of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Returns `true` if a target is notified while the job runs.
pub(crate) fn is_live(target: &CallbackTarget) -> bool {
    target.wants(STARTED) || target.wants(PROGRESS)
}

/// Notifies the target with this number of the job's start and progress, until the job has ended.
///
/// A notification is sent once at most, and the newest progress replaces any before it.
pub(super) async fn follow(
    sender: Arc<Sender>,
    changes: impl Stream<Item = Snapshot>,
    target: CallbackTarget,
    number: u32,
) {
    let mut changes = pin!(changes);
    let mut is_started = false;
    let mut told = Default::default();
    while let Some(job) = next(changes.as_mut()).await {
        if job.status != Status::Running {
            continue;
        }
        let event = if !is_started && target.wants(STARTED) {
            STARTED
        } else if target.wants(PROGRESS) && job.progress != told {
            PROGRESS
        } else {
            is_started = true;
            continue;
        };
        is_started = true;
        let began = Instant::now();
        let id = DeliveryId::new(job.id, number);
        let body = notification(&job, event, SystemTime::now(), &target.monitor);
        let notification = Notification {
            id: format!("{id}_{}", job.revision),
            url: &target.url,
            is_get: target.is_get,
            body,
        };
        sender.send_once(receiver(&target.url), notification).await;
        if event == PROGRESS {
            told = job.progress;
            sleep_until(began + PROGRESS_INTERVAL).await;
        }
    }
}

pub(super) async fn next<S: Stream>(mut changes: Pin<&mut S>) -> Option<S::Item> {
    poll_fn(|cx| changes.as_mut().poll_next(cx)).await
}
