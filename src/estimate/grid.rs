/// Ages from 0 on, in cells of one length: a whole part of a second, or whole seconds, so that a step of
/// whole seconds can lead from edge to edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// In seconds.
    step: f64,
    cells: usize,
}

/// The most cells of a grid. What a plan costs to make grows with their square.
const MAX_CELLS: usize = 256;

/// The finest that is told apart, in cells per second.
const FINEST: usize = 8;

/// How far a grid goes beyond the longest time that was seen, as a multiple of it, where that costs no whole
/// seconds.
const BEYOND: f64 = 1.5;

impl Grid {
    /// The finest grid that goes beyond the longest time that was seen, in seconds, and as far as 2 s at least.
    pub(super) fn beyond(longest: f64) -> Self {
        let horizon = (longest * BEYOND).max(2.0);
        let mut parts = FINEST;
        while parts > 1 && horizon * parts as f64 > MAX_CELLS as f64 {
            parts /= 2;
        }
        let step = match parts {
            1 => (longest / MAX_CELLS as f64).ceil().max(1.0),
            parts => 1.0 / parts as f64,
        };
        let cells = ((horizon / step).ceil() as usize).min(MAX_CELLS);
        Self { step, cells }
    }

    /// The length of a cell in seconds.
    pub(super) fn step(&self) -> f64 {
        self.step
    }

    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// Where it ends, in seconds.
    pub(super) fn horizon(&self) -> f64 {
        self.step * self.cells as f64
    }

    /// The cell that an age is in; `None` beyond the last.
    pub(super) fn cell(&self, age: f64) -> Option<usize> {
        let cell = (age / self.step) as usize;
        (cell < self.cells).then_some(cell)
    }

    /// How many cells are the shortest step of whole seconds; longer ones are its multiples.
    pub(super) fn stride(&self) -> usize {
        (1.0 / self.step).max(1.0) as usize
    }

    /// How many seconds so many cells are; of a step of whole seconds.
    pub(super) fn seconds(&self, cells: usize) -> u32 {
        (self.step * cells as f64) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_grid_goes_beyond_the_longest_in_few_cells(longest in 0.0..10_000_000.0) {
            let grid = Grid::beyond(longest);
            prop_assert!(grid.horizon() >= longest);
            prop_assert!(grid.cells() <= MAX_CELLS);
            prop_assert_eq!(f64::from(grid.seconds(grid.stride())) % 1.0, 0.0);
            prop_assert!(grid.seconds(grid.stride()) >= 1);
            prop_assert!(grid.stride() <= grid.cells());
        }
    }
}
