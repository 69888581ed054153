//! The response of a running call that is read while it is written.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::output_file::{OutputFile, SyncedFile};
use crate::{JobId, store::Charge};

/// The largest frame that a reader gets, in bytes.
pub(super) const MAX_FRAME_BYTES: usize = 64 * 1024;

/// The response of a running call, from its first flush on, or from when it goes to a file.
///
/// Its writer appends. The writer's thread commits what was flushed, and readers in this process
/// copy what was committed. The first bytes go to rows, and are here until the call has ended.
/// Those of a large body go to a file.
pub(super) struct FlushedOutput {
    pub(super) id: JobId,
    pub(super) claim: i64,
    /// The encoded head, without trailers.
    pub(super) head: Vec<u8>,
    /// The length of the whole body, if the service declared it.
    pub(super) declared: Option<u64>,
    /// Held to append, to copy a part, or to assign; never across a write, an await or a wake-up.
    state: Mutex<FlushedState>,
    /// Notified when nothing is being written to the file any more.
    pub(super) settled: Notify,
    /// Notified when a write to the file must not be delayed.
    pub(super) hurry: Notify,
}

struct FlushedState {
    /// The bytes that go to rows, and have been flushed up to `flushed`.
    rows: Vec<u8>,
    flushed: usize,
    /// The rest of a large body.
    file: Option<OutputFile>,
    committed: Option<Committed>,
    /// Set while it is in the queue.
    is_queued: bool,
    /// Set once its claim was lost: nothing of it is written any more.
    is_lost: bool,
    charge: Charge,
}

/// The part of an output that readers may read.
#[derive(Debug, Clone, Copy)]
struct Committed {
    run: u32,
    length: u64,
}

/// The answer of the memory to a reader.
pub(super) enum Look {
    Data(Bytes),
    /// Nothing until the next change.
    Wait,
    /// The file of jobs may have more.
    Elsewhere,
}

impl FlushedOutput {
    pub(super) fn new(
        (id, claim): (JobId, i64),
        head: Vec<u8>,
        declared: Option<u64>,
        charge: Charge,
    ) -> Self {
        Self {
            id,
            claim,
            head,
            declared,
            state: Mutex::new(FlushedState {
                rows: Vec::new(),
                flushed: 0,
                file: None,
                committed: None,
                is_queued: false,
                is_lost: false,
                charge,
            }),
            settled: Notify::new(),
            hurry: Notify::new(),
        }
    }

    /// Adds to the charge.
    pub(super) fn hold(&self, charge: Charge) {
        self.state.lock().charge.merge(charge);
    }

    /// Returns the bytes that stay in memory beside those that go to a file.
    pub(super) fn row_bytes(&self) -> usize {
        self.state.lock().flushed
    }

    /// Appends data.
    pub(super) fn push(&self, data: Bytes) {
        let mut state = self.state.lock();
        if state.is_lost {
            return;
        }
        match &mut state.file {
            Some(file) => file.push(data),
            None => state.rows.extend_from_slice(&data),
        }
    }

    /// Sends what was not flushed, and all that follows, to a file.
    pub(super) fn begin_file(&self) {
        let mut state = self.state.lock();
        let flushed = state.flushed;
        let mut file = OutputFile::new(flushed as u64);
        file.push(state.rows.split_off(flushed).into());
        state.file = Some(file);
    }

    /// Makes all data readable. Returns `true` if a row has to be written.
    pub(super) fn flush(&self) -> bool {
        let mut state = self.state.lock();
        match &mut state.file {
            Some(file) => file.flush(),
            None => state.flushed = state.rows.len(),
        }
        let length = state.committed.map(|committed| committed.length);
        !state.is_lost && length.is_none_or(|length| length < state.flushed as u64)
    }

    /// Returns what can be published from byte `from` on: the data that goes to rows, and the file
    /// if it has anything.
    ///
    /// Both are of one moment. A file begins where the data of rows ends.
    pub(super) fn publishable(&self, from: u64) -> (Bytes, Option<SyncedFile>) {
        let state = self.state.lock();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let rows = state.rows.get(from..state.flushed);
        let rows = rows.map_or_else(Bytes::new, Bytes::copy_from_slice);
        (rows, state.file.as_ref().and_then(OutputFile::synced))
    }

    /// Records what a transaction has committed.
    pub(super) fn committed(&self, run: u32, length: u64) {
        self.state.lock().committed = Some(Committed { run, length });
    }

    /// Drops everything: the claim is lost.
    pub(super) fn lose(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.is_lost = true;
            state.rows = Vec::new();
            state.flushed = 0;
            state.file.as_mut().and_then(OutputFile::give_up)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns what a reader of a run gets at `offset`.
    pub(super) fn look(&self, run: u32, offset: u64) -> Look {
        let state = self.state.lock();
        let Some(committed) = state.committed.filter(|committed| committed.run == run) else {
            return Look::Elsewhere;
        };
        if state.is_lost {
            return Look::Elsewhere;
        }
        if offset >= committed.length {
            return Look::Wait;
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // Only flushed data is committed.
        let end = committed.length.min(state.flushed as u64) as usize;
        match state.rows.get(offset..end) {
            Some(rest) if !rest.is_empty() => {
                let length = rest.len().min(MAX_FRAME_BYTES);
                Look::Data(Bytes::copy_from_slice(&rest[..length]))
            }
            _ => Look::Elsewhere,
        }
    }

    /// Changes the state of the file, if there is one.
    pub(super) fn with_file<T>(&self, change: impl FnOnce(&mut OutputFile) -> T) -> Option<T> {
        self.state.lock().file.as_mut().map(change)
    }

    /// Completes when the file takes more data. Wakes the task that polled last.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.with_file(|file| file.poll_room(cx));
        polled.unwrap_or(Poll::Ready(()))
    }
}

impl fmt::Debug for FlushedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushedOutput")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The outputs that were flushed and are not committed, the longest waiting first.
///
/// All that a call flushes while a commit runs is one part of the next one. So a slow disk makes
/// parts larger, and not more of them wait.
#[derive(Debug, Default)]
pub(super) struct OutputQueue(
    /// Held for a push, a pop or a look. An output's state is locked inside.
    Mutex<VecDeque<Arc<FlushedOutput>>>,
);

impl OutputQueue {
    /// Adds an output unless it waits already. Returns `true` if it was added.
    pub(super) fn add(&self, output: &Arc<FlushedOutput>) -> bool {
        let mut queue = self.0.lock();
        let was_queued = std::mem::replace(&mut output.state.lock().is_queued, true);
        if !was_queued {
            queue.push_back(output.clone());
        }
        !was_queued
    }

    /// Takes the next output. The next flush queues it again.
    pub(super) fn take(&self) -> Option<Arc<FlushedOutput>> {
        let mut queue = self.0.lock();
        let output = queue.pop_front()?;
        output.state.lock().is_queued = false;
        Some(output)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Budget, Purpose};

    fn new_output() -> Arc<FlushedOutput> {
        let charge = Budget::new(1 << 20).reserve(1_000, Purpose::Response);
        let owner = (JobId::random(), 1);
        let output = FlushedOutput::new(owner, Vec::new(), None, charge.expect("room"));
        Arc::new(output)
    }

    #[test]
    fn readers_get_what_is_committed_of_their_run() {
        let output = new_output();
        output.push(Bytes::from_static(b"flushed, "));
        assert!(output.flush());
        output.push(Bytes::from_static(b"and not"));
        assert_eq!(output.publishable(3).0, "shed, ");
        assert!(matches!(output.look(1, 0), Look::Elsewhere));
        output.committed(1, 5);
        assert!(matches!(output.look(1, 2), Look::Data(data) if data == "ush"));
        assert!(matches!(output.look(1, 5), Look::Wait));
        assert!(matches!(output.look(2, 0), Look::Elsewhere));
        // The rest must be written too.
        assert!(output.flush());
        output.committed(1, 16);
        assert!(!output.flush());
        output.lose();
        assert!(matches!(output.look(1, 2), Look::Elsewhere));
        output.push(Bytes::from_static(b"late"));
        assert!(!output.flush() && output.publishable(0).0.is_empty());
    }

    #[test]
    fn file_begins_where_rows_end() {
        let output = new_output();
        output.push(Bytes::from_static(b"rows"));
        output.flush();
        output.push(Bytes::from_static(b"file"));
        output.begin_file();
        output.push(Bytes::from_static(b", too"));
        output.flush();
        assert_eq!(output.publishable(0).0, "rows");
        assert_eq!(output.row_bytes(), 4);
        let taken = output.with_file(OutputFile::take_part).flatten();
        assert_eq!(taken.expect("a part").part.concat(), b"file, too");
    }

    #[test]
    fn output_waits_once() {
        let (queue, output) = (OutputQueue::default(), new_output());
        assert!(queue.add(&output) && !queue.add(&output));
        assert!(queue.take().is_some() && queue.is_empty());
        assert!(queue.add(&output));
    }
}
