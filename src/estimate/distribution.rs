//! A smooth distribution of durations.

use super::grid::Grid;

/// A distribution of durations, evaluated at the edges of a grid's cells.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    grid: Grid,
    /// The probability of lasting beyond each edge, starting with 1 at age 0.
    survival: Box<[f64]>,
}

/// The minimum half width over which a duration is smoothed, as a fraction of it.
const MIN_BANDWIDTH_RATIO: f64 = 0.002;

impl Distribution {
    /// Estimates the distribution of sorted durations in seconds.
    ///
    /// Each duration is spread evenly over its nearest few neighbors. This smooths a cluster, and
    /// keeps a gap between two clusters.
    ///
    /// For *n* durations, a probability of 1 / (*n* + 1) remains for durations not seen yet. Half
    /// of it is below the shortest. The other half is beyond the longest: half of the jobs that
    /// get there last twice as long.
    pub(super) fn from_sorted(sorted: &[f64], grid: Grid) -> Self {
        let count = sorted.len() as f64;
        let shortest = sorted.first().copied().unwrap_or_default();
        let longest = sorted.last().copied().unwrap_or_default();
        let unseen = 1.0 / (count + 1.0);
        let weight = (1.0 - unseen) / count;
        let neighbors = count.sqrt().ceil() as usize;
        // One more for what is beyond the grid.
        let mut density = vec![0.0; grid.cells() + 1];
        for (index, &at) in sorted.iter().enumerate() {
            let width = bandwidth(sorted, index, neighbors).max(at * MIN_BANDWIDTH_RATIO);
            spread(&mut density, grid, at - width, at + width, weight);
        }
        let mut seen = 1.0 - unseen;
        let survival = (0..=grid.cells()).map(|edge| {
            if let Some(before) = edge.checked_sub(1) {
                seen -= density[before];
            }
            let age = edge as f64 * grid.step();
            let below = if age < shortest {
                1.0 - age / shortest
            } else {
                0.0
            };
            let beyond = if age > longest { longest / age } else { 1.0 };
            seen.max(0.0) + unseen * (below + beyond) / 2.0
        });
        Self {
            survival: survival.collect(),
            grid,
        }
    }

    pub(super) fn grid(&self) -> Grid {
        self.grid
    }

    /// Returns the probability of lasting beyond each edge of the grid.
    pub(super) fn survival(&self) -> &[f64] {
        &self.survival
    }

    /// Returns the probability of lasting beyond an age in seconds.
    pub(super) fn survival_at(&self, age: f64) -> f64 {
        self.survival[self.grid.cell(age).unwrap_or(self.grid.cells())]
    }

    /// Returns, for each edge of the grid, the expected time in seconds since the end; a job that
    /// has not ended counts as 0.
    pub(super) fn expected_lateness(&self) -> Box<[f64]> {
        let mut lateness = 0.0;
        let cells = self.survival.windows(2).map(|pair| {
            lateness += (1.0 - (pair[0] + pair[1]) / 2.0) * self.grid.step();
            lateness
        });
        std::iter::once(0.0).chain(cells).collect()
    }

    /// Returns, for the beginning of each cell, the median of the remaining time in seconds, given
    /// that the job has not ended before.
    pub(super) fn median_remaining(&self) -> Box<[f32]> {
        let (mut edge, last) = (0, self.grid.cells());
        let cells = self.survival[..last].iter().enumerate();
        let remaining = cells.map(|(cell, survival)| {
            while edge < last && self.survival[edge] > survival / 2.0 {
                edge += 1;
            }
            // Interpolates within the cell before that edge.
            let (above, below) = (self.survival[edge.saturating_sub(1)], self.survival[edge]);
            let part = if above > below {
                ((above - survival / 2.0) / (above - below)).clamp(0.0, 1.0)
            } else {
                1.0
            };
            let median = (edge as f64 - 1.0 + part).max(cell as f64);
            ((median - cell as f64) * self.grid.step()) as f32
        });
        remaining.collect()
    }
}

/// Returns the distance to the farthest of the nearest neighbors on either side.
fn bandwidth(sorted: &[f64], index: usize, neighbors: usize) -> f64 {
    let at = sorted[index];
    let (mut low, mut high) = (index, index);
    while high - low < neighbors {
        let below = low.checked_sub(1).map(|low| at - sorted[low]);
        let above = sorted.get(high + 1).map(|above| above - at);
        match (below, above) {
            (Some(below), above) if above.is_none_or(|above| below <= above) => low -= 1,
            (_, Some(_)) => high += 1,
            (_, None) => break,
        }
    }
    (at - sorted[low]).max(sorted[high] - at)
}

/// Adds a weight evenly between two ages. The part beyond the grid goes to the last element.
fn spread(density: &mut [f64], grid: Grid, low: f64, high: f64, weight: f64) {
    let (low, high) = (low.max(0.0) / grid.step(), high.max(0.0) / grid.step());
    let last = density.len() - 1;
    let mut rest = weight;
    for (cell, in_cell) in density[..last].iter_mut().enumerate().skip(low as usize) {
        let within = high.min(cell as f64 + 1.0) - low.max(cell as f64);
        let part = if high > low {
            (weight * within / (high - low)).clamp(0.0, rest)
        } else {
            // Without any width, all of it is in this cell.
            rest
        };
        if part <= 0.0 {
            break;
        }
        *in_cell += part;
        rest -= part;
    }
    density[last] += rest;
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn distribution(durations: &[f64]) -> Distribution {
        let longest = durations.iter().copied().fold(0.0, f64::max);
        let mut sorted = durations.to_vec();
        sorted.sort_by(f64::total_cmp);
        Distribution::from_sorted(&sorted, Grid::covering(longest))
    }

    #[test]
    fn remaining_time_shrinks_with_age() {
        let distribution = distribution(&[20.0; 50]);
        let (left, grid) = (distribution.median_remaining(), distribution.grid());
        let at = |age| f64::from(left[grid.cell(age).expect("on the grid")]);
        for age in [0.0, 7.0, 19.0] {
            assert!((at(age) - (20.0 - age)).abs() < 0.3, "{} at {age}", at(age));
        }
        assert!(
            at(25.0) > 1.0,
            "a job that lasts longer than all others may go on"
        );
    }

    #[test]
    fn gap_between_clusters_stays_empty() {
        let mut durations = vec![10.0; 40];
        durations.extend([60.0; 40]);
        let distribution = distribution(&durations);
        let step = distribution.grid().step();
        let survival = |age: f64| distribution.survival()[(age / step) as usize];
        assert!((survival(15.0) - survival(55.0)).abs() < 1e-9);
        let left = distribution.median_remaining();
        assert!((f64::from(left[(15.0 / step) as usize]) - 45.0).abs() < 1.0);
    }

    proptest! {
        #[test]
        fn survival_falls_from_one(durations in vec(0.0..100_000.0, 1..129)) {
            let distribution = distribution(&durations);
            let survival = distribution.survival();
            prop_assert!((survival[0] - 1.0).abs() < 1e-9);
            prop_assert!(survival.windows(2).all(|pair| pair[0] >= pair[1] - 1e-9));
            prop_assert!(survival.iter().all(|&left| left > 0.0));
            let left = distribution.median_remaining();
            prop_assert!(left.iter().all(|&left| left >= 0.0 && left.is_finite()));
        }
    }
}
