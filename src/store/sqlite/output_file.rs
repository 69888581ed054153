//! The file of a large body that is written while it is produced.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    bodies::{BodyFile, BodyWriter},
    unwritten::Unwritten,
};

/// The bytes of a large body that are written at a time. Twice as many are in memory.
pub(super) const PART_BYTES: usize = 512 * 1024;

/// The time between two writes of small parts to the file of one body.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

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

/// The time of the next write.
pub(super) enum NextWrite {
    Now,
    From(Instant),
}

/// A part that a task is about to write.
pub(super) struct TakenPart {
    pub(super) part: Vec<Bytes>,
    pub(super) writer: Option<BodyWriter>,
    pub(super) waker: Option<Waker>,
}

/// A part of a body in a file, which is on the disk for certain.
pub(super) struct SyncedFile {
    pub(super) body: Arc<BodyFile>,
    /// The offset of the file's first byte.
    pub(super) start: u64,
    /// The offset after its last byte.
    pub(super) end: u64,
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

    /// Drops what is not written. The caller wakes the task that waits for room.
    #[must_use]
    pub(super) fn give_up(&mut self) -> Option<Waker> {
        self.mode = WriteMode::GivenUp;
        self.unwritten = Unwritten::default();
        self.waker.take()
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    /// Lets another task write.
    pub(super) fn stop(&mut self) {
        self.is_running = false;
    }

    /// Returns the time of the next write. After `None`, another task may run.
    pub(super) fn next_write(&mut self) -> Option<NextWrite> {
        self.is_running = self.has_work();
        if !self.is_running {
            return None;
        }
        Some(if self.is_urgent() {
            NextWrite::Now
        } else {
            NextWrite::From(self.next_write)
        })
    }

    /// Returns `true` if a failed write is worth another try.
    pub(super) fn may_retry(&self) -> bool {
        !matches!(self.mode, WriteMode::BestEffort | WriteMode::GivenUp)
    }

    /// Returns `true` if readers get what was written before the job ends.
    pub(super) fn is_published(&self) -> bool {
        matches!(self.mode, WriteMode::Parts | WriteMode::Flushed)
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

    pub(super) fn has_work(&self) -> bool {
        match self.mode {
            WriteMode::Parts => self.unwritten.len() >= PART_BYTES,
            WriteMode::Flushed | WriteMode::Rest | WriteMode::BestEffort => {
                self.unwritten.len() > 0
            }
            WriteMode::GivenUp => false,
        }
    }

    /// Returns `true` if a write must not be delayed.
    pub(super) fn is_urgent(&self) -> bool {
        self.mode != WriteMode::Flushed || self.unwritten.len() >= PART_BYTES
    }

    /// Returns `true` if the caller must start a task to write.
    pub(super) fn begin(&mut self) -> bool {
        let must_start = !self.is_running && self.has_work();
        self.is_running |= must_start;
        must_start
    }

    /// Takes the next part, and the writer if there is one. The caller wakes the task that waits
    /// for room.
    pub(super) fn take_part(&mut self) -> Option<TakenPart> {
        if !self.has_work() {
            return None;
        }
        let part = self.unwritten.take(PART_BYTES);
        if self.mode == WriteMode::Flushed && self.unwritten.len() == 0 {
            self.mode = WriteMode::Parts;
        }
        Some(TakenPart {
            part,
            writer: self.writer.take(),
            waker: self.waker.take(),
        })
    }

    pub(super) fn put_back(&mut self, writer: BodyWriter) {
        self.next_write = Instant::now() + FLUSH_INTERVAL;
        self.synced = Some((writer.body.clone(), writer.synced()));
        self.writer = Some(writer);
    }
}
