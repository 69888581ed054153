//! The output of an unfinished job, as the readers in this process see it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    lookup::LocatedJob,
    part::{OutputId, OutputStart},
};

/// The maximum number and size of the newest parts that are kept for readers. A larger part is kept
/// alone.
const MAX_RECENT_PARTS: usize = 256;
const MAX_RECENT_BYTES: usize = 64 << 10;

/// The output of a job as this process knows it.
#[derive(Default)]
pub(super) struct OutputView {
    /// The output of the newest call that has one.
    pub(super) output: Option<ViewedOutput>,
    pub(super) end: Option<OutputEnd>,
}

pub(super) struct ViewedOutput {
    pub(super) id: OutputId,
    pub(super) start: Arc<OutputStart>,
    /// The number of parts, and of the bytes in them.
    pub(super) count: u32,
    pub(super) bytes: u64,
    /// The newest parts, without a gap. A part is missing if the budget had no room for it.
    recent: VecDeque<RecentPart>,
    recent_bytes: usize,
}

#[derive(Clone)]
struct RecentPart {
    index: u32,
    offset: u64,
    /// Holds its charge.
    data: Bytes,
}

#[derive(Clone)]
pub(super) enum OutputEnd {
    Ended(Arc<LocatedJob>),
    /// The job was deleted, or has expired.
    Gone,
}

impl ViewedOutput {
    pub(super) fn new(id: OutputId, start: OutputStart) -> Self {
        Self {
            id,
            start: Arc::new(start),
            count: 0,
            bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
        }
    }

    /// Returns the data of a part, if it is one of the newest.
    pub(super) fn recent(&self, index: u32) -> Option<(u64, Bytes)> {
        let first = self.recent.front()?.index;
        let part = self.recent.get(index.checked_sub(first)? as usize)?;
        Some((part.offset, part.data.clone()))
    }

    /// Returns the index of the part that has the byte at `offset`, if it is one of the newest.
    pub(super) fn recent_index(&self, offset: u64) -> Option<u32> {
        let after = self.recent.partition_point(|part| part.offset <= offset);
        let part = self.recent.get(after.checked_sub(1)?)?;
        Some(part.index)
    }

    /// Adds the next part. `data` is `None` if there is no room for it.
    pub(super) fn push(&mut self, end: u64, data: Option<Bytes>) {
        let (index, offset) = (self.count, self.bytes);
        self.count += 1;
        self.bytes = end;
        let Some(data) = data else {
            return self.forget_recent();
        };
        self.recent_bytes += data.len();
        self.recent.push_back(RecentPart {
            index,
            offset,
            data,
        });
        let is_full = |this: &Self| {
            this.recent.len() > MAX_RECENT_PARTS || this.recent_bytes > MAX_RECENT_BYTES
        };
        while self.recent.len() > 1 && is_full(self) {
            let oldest = self.recent.pop_front();
            self.recent_bytes -= oldest.map_or(0, |part| part.data.len());
        }
    }

    /// Skips parts that this process did not receive.
    pub(super) fn skip_to(&mut self, count: u32, bytes: u64) {
        (self.count, self.bytes) = (count, bytes);
        self.forget_recent();
    }

    pub(super) fn has_recent(&self) -> bool {
        !self.recent.is_empty()
    }

    pub(super) fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }
}
