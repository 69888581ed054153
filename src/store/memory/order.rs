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
pub(super) struct EndOrder {
    ids: IdQueue,
    /// The charge of the ids in the queue. An id without room is not charged.
    charge: Option<Charge>,
    pub(super) reaper: Option<AbortHandle>,
    /// The time when the reaper wakes, in milliseconds since the epoch of the store; 0 while it
    /// runs.
    pub(super) reaped_at: u64,
}

impl EndOrder {
    pub(super) fn push(&mut self, id: JobId, budget: &Budget) {
        self.ids.push(id);
        self.charge(budget);
    }

    /// Puts back a job that was popped, as the one that ended first.
    pub(super) fn push_first(&mut self, id: JobId, budget: &Budget) {
        self.ids.push_first(id);
        self.charge(budget);
    }

    fn charge(&mut self, budget: &Budget) {
        if let Some(charge) = budget.reserve(IdQueue::ENTRY_BYTES, Purpose::Kept) {
            match &mut self.charge {
                Some(all) => all.merge(charge),
                none => *none = Some(charge),
            }
        }
    }

    pub(super) fn first(&self) -> Option<JobId> {
        self.ids.first()
    }

    pub(super) fn pop(&mut self) -> Option<JobId> {
        let first = self.ids.pop()?;
        if let Some(charge) = &mut self.charge {
            drop(charge.split(IdQueue::ENTRY_BYTES));
        }
        Some(first)
    }
}

impl Drop for EndOrder {
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
    /// The size of an entry.
    const ENTRY_BYTES: usize = size_of::<JobId>();

    /// The number of ids in a block of 16 KiB.
    const BLOCK_LEN: usize = 1024;

    fn push(&mut self, id: JobId) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < Self::BLOCK_LEN => block.push(id),
            _ => {
                let mut block = Vec::with_capacity(Self::BLOCK_LEN);
                block.push(id);
                self.blocks.push_back(block);
            }
        }
    }

    fn push_first(&mut self, id: JobId) {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                if let Some(place) = self
                    .blocks
                    .front_mut()
                    .and_then(|block| block.get_mut(left))
                {
                    *place = id;
                }
            }
            None => self.blocks.push_front(vec![id]),
        }
    }

    fn first(&self) -> Option<JobId> {
        self.blocks.front()?.get(self.left).copied()
    }

    fn pop(&mut self) -> Option<JobId> {
        let first = self.first()?;
        self.left += 1;
        if self.left == self.blocks.front().map_or(0, Vec::len) {
            self.blocks.pop_front();
            self.left = 0;
        }
        Some(first)
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
        early.iter().for_each(|&id| queue.push(id));
        assert_eq!(queue.pop(), Some(early[0]));
        late.iter().for_each(|&id| queue.push(id));
        for &id in &ids[1..] {
            assert_eq!(queue.first(), Some(id));
            assert_eq!(queue.pop(), Some(id));
        }
        assert_eq!((queue.first(), queue.pop()), (None, None));
        for &id in &ids {
            queue.push_first(id);
        }
        for &id in ids.iter().rev() {
            assert_eq!(queue.pop(), Some(id));
        }
        assert!(queue.blocks.is_empty());
    }
}
