//! The file of a large body that is written while it is produced.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    select,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use super::{
    bodies::{BodyFile, BodyWriter},
    cache::CachedJob,
    output::{Output, SyncedFile},
    process::Process,
    unwritten::Unwritten,
};

/// The bytes of a large body that are written at a time. Twice as many are in memory.
pub(super) const PART_BYTES: usize = 512 * 1024;

/// The time between two writes of small parts to the file of one body.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

/// The delay before a part is written again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The file of a large body, while the body is produced.
///
/// One task at a time writes it, and ends when nothing is left to be written.
pub(super) struct OutputFile {
    /// The offset of the file's first byte in the body.
    start: u64,
    unwritten: Unwritten,
    /// Taken by the task while it writes.
    writer: Option<BodyWriter>,
    synced: Option<(Arc<BodyFile>, u64)>,
    mode: WriteMode,
    /// The earliest time of a write that is not urgent.
    next_write: Instant,
    is_running: bool,
    /// The task that waits for room.
    waker: Option<Waker>,
}

/// The data that the task writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteMode {
    /// Full parts.
    Parts,
    /// Flushed data, after a while. The mode goes back to full parts once it is written.
    Flushed,
    /// All data, at once.
    Rest,
    /// All data, at once and unless a write fails.
    BestEffort,
    /// Nothing.
    GivenUp,
}

impl OutputFile {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            unwritten: Unwritten::default(),
            writer: None,
            synced: None,
            mode: WriteMode::Parts,
            next_write: Instant::now(),
            is_running: false,
            waker: None,
        }
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if self.mode != WriteMode::GivenUp {
            self.unwritten.push(data);
        }
    }

    /// Has all data so far written.
    pub(super) fn flush(&mut self) {
        if self.mode == WriteMode::Parts && self.unwritten.len() > 0 {
            self.mode = WriteMode::Flushed;
        }
    }

    /// Has all data written at once.
    pub(super) fn write_rest(&mut self) {
        if self.mode != WriteMode::GivenUp {
            self.mode = WriteMode::Rest;
        }
    }

    /// Has all data written at once, unless a write fails.
    pub(super) fn break_off(&mut self) {
        if self.mode != WriteMode::GivenUp {
            self.mode = WriteMode::BestEffort;
        }
    }

    /// Drops what is not written.
    pub(super) fn give_up(&mut self) {
        self.mode = WriteMode::GivenUp;
        self.unwritten = Unwritten::default();
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    /// Returns the number of bytes of the body up to the end of the file.
    pub(super) fn end(&self) -> u64 {
        self.start + self.synced.as_ref().map_or(0, |(_, length)| *length)
    }

    pub(super) fn synced(&self) -> Option<SyncedFile> {
        let (body, length) = self.synced.as_ref()?;
        Some(SyncedFile {
            body: body.clone(),
            start: self.start,
            end: self.start + length,
        })
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unwritten.len() < PART_BYTES || self.mode == WriteMode::GivenUp {
            return Poll::Ready(());
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn has_work(&self) -> bool {
        match self.mode {
            WriteMode::Parts => self.unwritten.len() >= PART_BYTES,
            WriteMode::Flushed | WriteMode::Rest | WriteMode::BestEffort => {
                self.unwritten.len() > 0
            }
            WriteMode::GivenUp => false,
        }
    }

    /// Returns `true` if a write must not be delayed.
    fn is_urgent(&self) -> bool {
        self.mode != WriteMode::Flushed || self.unwritten.len() >= PART_BYTES
    }

    /// Returns `true` if the caller must start a task to write.
    fn begin(&mut self) -> bool {
        let must_start = !self.is_running && self.has_work();
        self.is_running |= must_start;
        must_start
    }

    /// Takes the next part, and the writer if there is one.
    fn take_part(&mut self) -> Option<(Vec<Bytes>, Option<BodyWriter>)> {
        if !self.has_work() {
            return None;
        }
        let part = self.unwritten.take(PART_BYTES);
        if self.mode == WriteMode::Flushed && self.unwritten.len() == 0 {
            self.mode = WriteMode::Parts;
        }
        self.wake();
        Some((part, self.writer.take()))
    }

    fn put_back(&mut self, writer: BodyWriter) {
        self.next_write = Instant::now() + FLUSH_INTERVAL;
        self.synced = Some((writer.body.clone(), writer.synced()));
        self.writer = Some(writer);
    }
}

/// Starts a task if there is something to write and no task runs.
pub(super) fn write(process: &Arc<Process>, job: &Arc<CachedJob>, output: &Arc<Output>) {
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

/// Completes once nothing is being written.
pub(super) async fn settled(output: &Output) {
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
    output: Arc<Output>,
    /// Set once another task may run.
    is_done: bool,
}

impl Drop for Running {
    /// Lets the output settle even if a shutdown drops the task.
    fn drop(&mut self) {
        if !self.is_done {
            self.output.with_file(|file| file.is_running = false);
        }
        self.output.settled.notify_waiters();
    }
}

impl Running {
    async fn run(mut self) {
        let output = self.output.clone();
        loop {
            // Under one lock, so that a flush either finds this running or starts a task.
            let due = output.with_file(|file| {
                file.is_running = file.has_work();
                let due = (!file.is_urgent()).then_some(file.next_write);
                file.is_running.then_some(due)
            });
            match due.flatten() {
                None => {
                    self.is_done = true;
                    return;
                }
                Some(None) => {}
                Some(Some(due)) => select! {
                    () = sleep_until(due) => {}
                    () = output.hurry.notified() => {}
                },
            }
            let Some((part, writer)) = output.with_file(OutputFile::take_part).flatten() else {
                continue;
            };
            let Some(writer) = self.write(part, writer).await else {
                output.with_file(OutputFile::give_up);
                return;
            };
            let is_published = output.with_file(|file| {
                file.put_back(writer);
                // Otherwise the end of the job publishes it.
                matches!(file.mode, WriteMode::Parts | WriteMode::Flushed)
            });
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
                && self.output.with_file(|file| file.mode) != Some(WriteMode::BestEffort);
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
