//! The task that writes a large body to its file.

use std::{sync::Arc, task::Waker, time::Duration};

use bytes::Bytes;
use tokio::{
    select,
    task::spawn_blocking,
    time::{sleep, sleep_until},
};

use super::{
    bodies::BodyWriter,
    cache::CachedJob,
    output::FlushedOutput,
    output_file::{NextWrite, OutputFile},
    process::Process,
};

/// The delay before a part is written again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Starts a task if there is something to write and no task runs.
pub(super) fn write(process: &Arc<Process>, job: &Arc<CachedJob>, output: &Arc<FlushedOutput>) {
    let is_urgent = output.with_file(|file| file.has_work() && file.is_urgent());
    if is_urgent == Some(true) {
        output.hurry.notify_one();
    }
    if output.with_file(OutputFile::begin) == Some(true) {
        let running = Running {
            process: process.clone(),
            job: job.clone(),
            output: output.clone(),
            is_done: false,
        };
        // It ends once everything is written, or its claim is lost.
        tokio::spawn(running.run());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Completes once nothing is being written.
pub(super) async fn settled(output: &FlushedOutput) {
    loop {
        // Created before the look, so that no notification is lost after it.
        let settled = output.settled.notified();
        if output.with_file(|file| file.is_running()) != Some(true) {
            return;
        }
        settled.await;
    }
}

/// The task that writes a file.
struct Running {
    process: Arc<Process>,
    job: Arc<CachedJob>,
    output: Arc<FlushedOutput>,
    /// Set once another task may run.
    is_done: bool,
}

impl Drop for Running {
    /// Lets the output settle even if a shutdown drops the task.
    fn drop(&mut self) {
        if !self.is_done {
            self.output.with_file(OutputFile::stop);
        }
        self.output.settled.notify_waiters();
    }
}

impl Running {
    async fn run(mut self) {
        let output = self.output.clone();
        loop {
            // Under one lock, so that a flush either finds this running or starts a task.
            match output.with_file(OutputFile::next_write).flatten() {
                None => {
                    self.is_done = true;
                    return;
                }
                Some(NextWrite::Now) => {}
                Some(NextWrite::From(due)) => select! {
                    () = sleep_until(due) => {}
                    () = output.hurry.notified() => {}
                },
            }
            let Some(taken) = output.with_file(OutputFile::take_part).flatten() else {
                continue;
            };
            wake(taken.waker);
            let Some(writer) = self.write(taken.part, taken.writer).await else {
                wake(output.with_file(OutputFile::give_up).flatten());
                return;
            };
            let is_published = output.with_file(|file| {
                file.put_back(writer);
                file.is_published()
            });
            // Otherwise the end of the job publishes it.
            if is_published == Some(true) {
                self.process.publish(&output);
            }
        }
    }

    /// Writes a part, and retries until it succeeds. Returns `None` if the job ends without it, or
    /// the runtime shuts down.
    async fn write(&self, part: Vec<Bytes>, mut writer: Option<BodyWriter>) -> Option<BodyWriter> {
        loop {
            let (bodies, part) = (self.process.shared.bodies.clone(), part.clone());
            let writing = spawn_blocking(move || {
                let created = match writer {
                    Some(writer) => Ok(writer),
                    None => BodyWriter::create(&bodies),
                };
                match created {
                    Ok(mut writer) => {
                        let written = writer.append(&part);
                        (Some(writer), written)
                    }
                    Err(error) => (None, Err(error)),
                }
            });
            let (returned, written) = writing.await.ok()?;
            let Err(error) = written else {
                return returned;
            };
            let is_wanted = self.job.claim() == Some(self.output.claim)
                && self.output.with_file(|file| file.may_retry()) == Some(true);
            if !is_wanted {
                tracing::warn!(%error, "failed to write the body of a response");
                return None;
            }
            tracing::warn!(%error, "failed to write the body of a response, retrying");
            writer = returned;
            sleep(RETRY_DELAY).await;
        }
    }
}
