use std::collections::VecDeque;

use crate::job::JobId;

/// The ended jobs, the one that ended first in front.
///
/// Kept in blocks of a fixed size, so that a million jobs never make it copy itself: a block is
/// allocated when the last one is full, and freed when its last job has left.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: VecDeque<Vec<JobId>>,
    /// How many places of the first block have been left.
    left: usize,
}

impl Order {
    /// What one place takes, in bytes.
    pub(super) const PLACE_BYTES: usize = size_of::<JobId>();

    /// The number of places in a block: 16 KiB of them.
    const BLOCK: usize = 1024;

    pub(super) fn push(&mut self, id: JobId) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < Self::BLOCK => block.push(id),
            _ => {
                let mut block = Vec::with_capacity(Self::BLOCK);
                block.push(id);
                self.blocks.push_back(block);
            }
        }
    }

    pub(super) fn first(&self) -> Option<JobId> {
        self.blocks.front()?.get(self.left).copied()
    }

    pub(super) fn pop(&mut self) -> Option<JobId> {
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
    fn jobs_leave_as_they_came_over_many_blocks() {
        let mut order = Order::default();
        let jobs: Vec<_> = (0..3 * Order::BLOCK + 7).map(|_| JobId::random()).collect();
        let (early, late) = jobs.split_at(Order::BLOCK / 2);
        early.iter().for_each(|&id| order.push(id));
        assert_eq!(order.pop(), Some(early[0]));
        late.iter().for_each(|&id| order.push(id));
        for &id in &jobs[1..] {
            assert_eq!(order.first(), Some(id));
            assert_eq!(order.pop(), Some(id));
        }
        assert_eq!((order.first(), order.pop()), (None, None));
        assert!(order.blocks.is_empty());
    }
}
