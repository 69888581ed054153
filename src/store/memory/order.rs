//! The ended jobs in the order of their ends.

use std::collections::VecDeque;

use tokio::task::AbortHandle;

use crate::{
    job::JobId,
    limit::{Budget, Charge, Purpose},
};

/// The ended jobs in the order of their ends, and the task that frees them when they expire.
///
/// A job that was deleted stays until its turn.
#[derive(Debug, Default)]
pub(super) struct EndedJobs {
    ids: IdQueue,
    /// What the blocks of the queue take of the budget, as far as there was room for them.
    charge: Option<Charge>,
    pub(super) reaper: Option<AbortHandle>,
}

impl EndedJobs {
    pub(super) fn push(&mut self, id: JobId, budget: &Budget) {
        if !self.ids.push(id) {
            return;
        }
        if let Some(block) = budget.reserve(IdQueue::BLOCK_BYTES, Purpose::Accepted) {
            match &mut self.charge {
                Some(all) => all.merge(block),
                none => *none = Some(block),
            }
        }
    }

    pub(super) fn first(&self) -> Option<JobId> {
        self.ids.first()
    }

    pub(super) fn pop(&mut self) -> Option<JobId> {
        let (first, frees_block) = self.ids.pop()?;
        if let (true, Some(charge)) = (frees_block, &mut self.charge) {
            drop(charge.split(IdQueue::BLOCK_BYTES));
        }
        Some(first)
    }
}

impl Drop for EndedJobs {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
    }
}

/// A queue of ids in blocks of a fixed size, so that it never copies a million of them.
///
/// A block is allocated when the last one is full, and freed when its last id has left.
#[derive(Debug, Default)]
struct IdQueue {
    blocks: VecDeque<Vec<JobId>>,
    /// The number of ids that have left the first block.
    left: usize,
}

impl IdQueue {
    /// The number of ids in a block.
    const BLOCK_LEN: usize = 1024;

    /// What a block takes, in bytes.
    const BLOCK_BYTES: usize = Self::BLOCK_LEN * size_of::<JobId>();

    /// Appends an id. Returns `true` if that took a new block.
    fn push(&mut self, id: JobId) -> bool {
        if let Some(block) = self.blocks.back_mut()
            && block.len() < Self::BLOCK_LEN
        {
            block.push(id);
            return false;
        }
        let mut block = Vec::with_capacity(Self::BLOCK_LEN);
        block.push(id);
        self.blocks.push_back(block);
        true
    }

    fn first(&self) -> Option<JobId> {
        self.blocks.front()?.get(self.left).copied()
    }

    /// Removes the first id. Returns it, and `true` if that freed a block.
    fn pop(&mut self) -> Option<(JobId, bool)> {
        let first = self.first()?;
        self.left += 1;
        let frees_block = self.left == self.blocks.front().map_or(0, Vec::len);
        if frees_block {
            self.blocks.pop_front();
            self.left = 0;
        }
        Some((first, frees_block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_leave_in_order_over_many_blocks() {
        let mut queue = IdQueue::default();
        let ids: Vec<_> = (0..3 * IdQueue::BLOCK_LEN + 7)
            .map(|_| JobId::random())
            .collect();
        let (early, late) = ids.split_at(IdQueue::BLOCK_LEN / 2);
        for &id in early {
            queue.push(id);
        }
        assert_eq!(queue.pop(), Some((early[0], false)));
        for &id in late {
            queue.push(id);
        }
        for &id in &ids[1..] {
            assert_eq!(queue.first(), Some(id));
            assert_eq!(queue.pop().map(|(id, _)| id), Some(id));
        }
        assert_eq!((queue.first(), queue.pop()), (None, None));
        assert!(queue.blocks.is_empty());
    }
}
