//! How long it may take: the distribution that some durations are taken to be of.

use super::grid::Grid;

/// A distribution of durations, given by the edges of a grid's cells.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    grid: Grid,
    /// The probability to take longer than up to each edge, from the first one on, where it is 1.
    survival: Box<[f64]>,
}

/// How wide a duration is smeared at least, as a part of it: nothing takes the same time twice.
const NARROWEST: f64 = 0.002;

impl Distribution {
    /// The distribution that durations, sorted and in seconds, are taken to be of.
    ///
    /// Each stands for what is as near to it as the nearest few of its neighbors: so a crowd is smoothed and
    /// a gap between two crowds stays one. One part in as many as there are, and one more, is left for what was
    /// not seen: half of it is anywhere below the shortest, half beyond the longest, where what has lasted so
    /// long lasts as long again as often as not.
    pub(super) fn of(sorted: &[f64], grid: Grid) -> Self {
        let count = sorted.len() as f64;
        let shortest = sorted.first().copied().unwrap_or_default();
        let longest = sorted.last().copied().unwrap_or_default();
        let unseen = 1.0 / (count + 1.0);
        let weight = (1.0 - unseen) / count;
        let neighbors = count.sqrt().ceil() as usize;
        let mut parts = vec![0.0; grid.cells() + 1];
        for (index, &at) in sorted.iter().enumerate() {
            let reach = reach(sorted, index, neighbors).max(at * NARROWEST);
            smear(&mut parts, grid, at - reach, at + reach, weight);
        }
        let mut seen = 1.0 - unseen;
        let survival = (0..=grid.cells()).map(|edge| {
            if let Some(before) = edge.checked_sub(1) {
                seen -= parts[before];
            }
            let age = edge as f64 * grid.step();
            let below = match age < shortest {
                true => 1.0 - age / shortest,
                false => 0.0,
            };
            let beyond = match age > longest {
                true => longest / age,
                false => 1.0,
            };
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

    /// The probability to take longer than up to each edge of the grid.
    pub(super) fn survival(&self) -> &[f64] {
        &self.survival
    }

    /// The probability to take longer than so many seconds.
    pub(super) fn left_at(&self, age: f64) -> f64 {
        self.survival[self.grid.cell(age).unwrap_or(self.grid.cells())]
    }

    /// How long ago it is to be expected to have come, in seconds, at each edge of the grid; not to have come
    /// counts as 0.
    pub(super) fn late(&self) -> Box<[f64]> {
        let mut late = 0.0;
        let cells = self.survival.windows(2).map(|pair| {
            late += (1.0 - (pair[0] + pair[1]) / 2.0) * self.grid.step();
            late
        });
        std::iter::once(0.0).chain(cells).collect()
    }

    /// For each cell, in seconds, what is left from its beginning on where it has not come by then: half the
    /// time it is more.
    pub(super) fn median_left(&self) -> Box<[f32]> {
        let (mut edge, last) = (0, self.grid.cells());
        let cells = self.survival[..last].iter().enumerate();
        let left = cells.map(|(cell, survival)| {
            while edge < last && self.survival[edge] > survival / 2.0 {
                edge += 1;
            }
            // Where in the cell before that edge.
            let (above, below) = (self.survival[edge.saturating_sub(1)], self.survival[edge]);
            let part = match above > below {
                true => ((above - survival / 2.0) / (above - below)).clamp(0.0, 1.0),
                false => 1.0,
            };
            let median = (edge as f64 - 1.0 + part).max(cell as f64);
            ((median - cell as f64) * self.grid.step()) as f32
        });
        left.collect()
    }
}

/// How far it is to the farthest of so many neighbors, the nearest ones on either side.
fn reach(sorted: &[f64], index: usize, neighbors: usize) -> f64 {
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

/// Puts a weight evenly on all that is between two ages; what is beyond the grid goes to the last part.
fn smear(parts: &mut [f64], grid: Grid, low: f64, high: f64, weight: f64) {
    let (low, high) = (low.max(0.0) / grid.step(), high.max(0.0) / grid.step());
    let last = parts.len() - 1;
    let mut rest = weight;
    for (cell, in_cell) in parts[..last].iter_mut().enumerate().skip(low as usize) {
        let within = high.min(cell as f64 + 1.0) - low.max(cell as f64);
        let part = match high > low {
            true => (weight * within / (high - low)).clamp(0.0, rest),
            // Of no width at all, it is all here.
            false => rest,
        };
        if part <= 0.0 {
            break;
        }
        *in_cell += part;
        rest -= part;
    }
    parts[last] += rest;
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn of(durations: &[f64]) -> Distribution {
        let longest = durations.iter().copied().fold(0.0, f64::max);
        let mut sorted = durations.to_vec();
        sorted.sort_by(f64::total_cmp);
        Distribution::of(&sorted, Grid::beyond(longest))
    }

    #[test]
    fn what_is_left_counts_from_the_age_reached() {
        let left = of(&[20.0; 50]).median_left();
        let grid = of(&[20.0; 50]).grid();
        let at = |age| f64::from(left[grid.cell(age).expect("on the grid")]);
        for age in [0.0, 7.0, 19.0] {
            assert!((at(age) - (20.0 - age)).abs() < 0.3, "{} at {age}", at(age));
        }
        assert!(at(25.0) > 1.0, "what has lasted longer than all may last");
    }

    #[test]
    fn a_gap_between_two_crowds_stays_one() {
        let mut durations = vec![10.0; 40];
        durations.extend([60.0; 40]);
        let distribution = of(&durations);
        let step = distribution.grid().step();
        let survival = |age: f64| distribution.survival()[(age / step) as usize];
        assert!((survival(15.0) - survival(55.0)).abs() < 1e-9);
        let left = distribution.median_left();
        assert!((f64::from(left[(15.0 / step) as usize]) - 45.0).abs() < 1.0);
    }

    proptest! {
        #[test]
        fn survival_falls_from_one(durations in vec(0.0..100_000.0, 1..129)) {
            let distribution = of(&durations);
            let survival = distribution.survival();
            prop_assert!((survival[0] - 1.0).abs() < 1e-9);
            prop_assert!(survival.windows(2).all(|pair| pair[0] >= pair[1] - 1e-9));
            prop_assert!(survival.iter().all(|&left| left > 0.0));
            let left = distribution.median_left();
            prop_assert!(left.iter().all(|&left| left >= 0.0 && left.is_finite()));
        }
    }
}
