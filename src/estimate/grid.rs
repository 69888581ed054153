//! Ages in cells of equal length.

/// Ages from 0 on, in cells of equal length.
///
/// A cell is a whole fraction of a second or a number of whole seconds. So a delay of whole
/// seconds, as `Retry-After` has it, leads from one edge to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// In seconds.
    step: f64,
    cells: usize,
}

/// The time to compute a plan grows with the square of this.
const MAX_CELLS: usize = 256;

/// The finest resolution.
const MAX_CELLS_PER_SECOND: usize = 8;

/// The preferred length of a grid, as a multiple of the longest duration. A grid of coarse cells is
/// shorter.
const HORIZON_FACTOR: f64 = 1.5;

const MIN_HORIZON_SECONDS: f64 = 2.0;

impl Grid {
    /// Creates the finest grid that covers a duration in seconds.
    pub(super) fn covering(longest: f64) -> Self {
        let horizon = (longest * HORIZON_FACTOR).max(MIN_HORIZON_SECONDS);
        let mut per_second = MAX_CELLS_PER_SECOND;
        while per_second > 1 && horizon * per_second as f64 > MAX_CELLS as f64 {
            per_second /= 2;
        }
        let step = if per_second > 1 {
            1.0 / per_second as f64
        } else {
            (longest / MAX_CELLS as f64).ceil().max(1.0)
        };
        let cells = ((horizon / step).ceil() as usize).min(MAX_CELLS);
        Self { step, cells }
    }

    /// Returns the length of a cell in seconds.
    pub(super) fn step(&self) -> f64 {
        self.step
    }

    /// Returns the number of cells.
    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// Returns the end of the last cell in seconds.
    pub(super) fn horizon(&self) -> f64 {
        self.step * self.cells as f64
    }

    /// Returns the cell that contains an age; `None` beyond the last cell.
    pub(super) fn cell(&self, age: f64) -> Option<usize> {
        let cell = (age / self.step) as usize;
        (cell < self.cells).then_some(cell)
    }

    /// Returns the number of cells in the shortest delay of whole seconds. Longer delays are
    /// multiples of it.
    pub(super) fn stride(&self) -> usize {
        (1.0 / self.step).max(1.0) as usize
    }

    /// Returns the whole seconds in a multiple of the stride.
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
        fn few_cells_cover_any_duration(longest in 0.0..10_000_000.0) {
            let grid = Grid::covering(longest);
            prop_assert!(grid.horizon() >= longest);
            prop_assert!(grid.cells() <= MAX_CELLS);
            prop_assert_eq!(f64::from(grid.seconds(grid.stride())) % 1.0, 0.0);
            prop_assert!(grid.seconds(grid.stride()) >= 1);
            prop_assert!(grid.stride() <= grid.cells());
        }
    }
}
