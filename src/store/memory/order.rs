use std::collections::VecDeque;

use crate::job::JobId;

/// The ended jobs, the one that ended first in front.
///
/// Kept in blocks of a fixed size, so that a million jobs never make it copy itself: a block is
/// allocated when the last one is full, and freed when its last job has left.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: VecDeque<Vec<Place>>,
    /// How many places of the first block have been left.
    left: usize,
}

/// One job's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: JobId,
    /// In milliseconds since the store was made.
    pub(super) expires: u64,
}

impl Order {
    /// What one place takes, in bytes.
    pub(super) const PLACE_BYTES: usize = size_of::<Place>();

    /// The number of places in a block: 24 KiB of them.
    const BLOCK: usize = 1024;

    pub(super) fn push(&mut self, place: Place) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < Self::BLOCK => block.push(place),
            _ => {
                let mut block = Vec::with_capacity(Self::BLOCK);
                block.push(place);
                self.blocks.push_back(block);
            }
        }
    }

    pub(super) fn first(&self) -> Option<Place> {
        self.blocks.front()?.get(self.left).copied()
    }

    pub(super) fn pop(&mut self) -> Option<Place> {
        let place = self.first()?;
        self.left += 1;
        if self.left == self.blocks.front().map_or(0, Vec::len) {
            self.blocks.pop_front();
            self.left = 0;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_leave_as_they_came_over_many_blocks() {
        let mut order = Order::default();
        let places: Vec<_> = (0..3 * Order::BLOCK as u64 + 7)
            .map(|expires| Place {
                id: JobId::random(),
                expires,
            })
            .collect();
        let (early, late) = places.split_at(Order::BLOCK / 2);
        early.iter().for_each(|&place| order.push(place));
        assert_eq!(order.pop(), Some(early[0]));
        late.iter().for_each(|&place| order.push(place));
        for &place in &places[1..] {
            assert_eq!(order.first(), Some(place));
            assert_eq!(order.pop(), Some(place));
        }
        assert_eq!((order.first(), order.pop()), (None, None));
        assert!(order.blocks.is_empty());
    }
}
