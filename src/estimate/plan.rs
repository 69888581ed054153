//! When to look: the whole seconds after which it is best to ask again.

use super::{back_off::back_off, distribution::Distribution, grid::Grid};

/// For each age at which a client may ask, after how long it best asks again.
///
/// Who asks often learns soon of what is waited for, the event; who asks seldom costs little. Poll for poll
/// a cost is set, as a time, so that both are one sum: *cost of all polls + time from the event to the poll
/// that finds it*. The plan is the one whose sum is the least to be expected. It is found from the last
/// age back to the first, since what is best from an age on does not depend on what was done before
/// (dynamic programming).
#[derive(Debug, Clone)]
pub(super) struct Plan {
    grid: Grid,
    /// In seconds, at the beginning of each cell.
    next: Box<[u32]>,
}

/// The sum that a plan is expected to come to from each edge on, in seconds, where the event has not come by then.
#[derive(Debug)]
pub(super) struct Ahead {
    grid: Grid,
    sums: Box<[f64]>,
}

impl Plan {
    /// The plan to find an event that comes as `distribution` has it, with polls that cost `poll_cost`
    /// seconds each.
    ///
    /// `found` is what is yet to be paid, in seconds, where a poll finds that the event came so many seconds
    /// before; where it is the end of all, that is just this time.
    pub(super) fn new(
        distribution: &Distribution,
        poll_cost: f64,
        found: impl Fn(f64) -> f64,
    ) -> (Self, Ahead) {
        let (grid, survival) = (distribution.grid(), distribution.survival());
        let (cells, stride) = (grid.cells(), grid.stride());
        // An event is taken to come in the middle of its cell.
        let found: Vec<f64> = (0..cells)
            .map(|before| found((before as f64 + 0.5) * grid.step()))
            .collect();
        let beyond = beyond(grid.horizon(), poll_cost);
        // All sums are as seen from the beginning: weighed with the survival.
        let mut best: Vec<f64> = survival.iter().map(|left| left * beyond).collect();
        let mut next: Vec<Option<u32>> = vec![None; cells];
        for poll in (1..=cells).rev() {
            let mut since = 0.0;
            for from in (0..poll).rev() {
                since += (survival[from] - survival[from + 1]) * found[poll - 1 - from];
                let step = poll - from;
                if step % stride != 0 {
                    continue;
                }
                let sum = survival[from] * poll_cost + since + best[poll];
                // The first that is tried replaces the guess from beyond the grid.
                if next[from].is_none() || sum < best[from] {
                    best[from] = sum;
                    next[from] = Some(grid.seconds(step));
                }
            }
        }
        let next = next.iter().enumerate().map(|(cell, next)| {
            // So near to the grid's end that no step of whole seconds stays on it.
            next.unwrap_or_else(|| overdue(cell as f64 * grid.step(), poll_cost) as u32)
        });
        let plan = Self {
            next: next.collect(),
            grid,
        };
        let sums = best.iter().zip(survival).map(|(sum, left)| sum / left);
        let sums = sums.collect();
        (plan, Ahead { grid, sums })
    }

    /// After how many whole seconds, at least one, it is best to ask again at this age; `None` beyond what is
    /// planned.
    pub(super) fn next(&self, age: f64) -> Option<u64> {
        self.grid.cell(age).map(|cell| self.next[cell].into())
    }
}

impl Ahead {
    /// What is yet to be paid at this age, in seconds.
    pub(super) fn at(&self, age: f64) -> f64 {
        self.sums[self.grid.cell(age).unwrap_or(self.grid.cells())]
    }
}

/// After how many whole seconds it is best to ask again at an age beyond all that is planned.
///
/// What has lasted so long lasts as long again as often as not: the event comes within the next second with a
/// probability of one in as many as the age has. Where that is all that is known, polls that far apart cost as
/// much as what comes between them is found late.
pub(super) fn overdue(age: f64, poll_cost: f64) -> u64 {
    ((2.0 * poll_cost * age).sqrt() as u64).clamp(1, back_off(age))
}

/// What is yet to be paid at such an age, in seconds.
fn beyond(age: f64, poll_cost: f64) -> f64 {
    poll_cost + (2.0 * poll_cost * age).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn plan(durations: &[f64], poll_cost: f64) -> (Plan, Ahead) {
        let mut sorted = durations.to_vec();
        sorted.sort_by(f64::total_cmp);
        let longest = sorted.last().copied().unwrap_or_default();
        let distribution = Distribution::of(&sorted, Grid::beyond(longest));
        Plan::new(&distribution, poll_cost, |since| since)
    }

    /// The ages at which one who follows the plan asks, up to the first that is not before `end`.
    fn polls(plan: &Plan, end: f64) -> Vec<u64> {
        let mut polls = vec![0];
        while let Some(&last) = polls.last().filter(|&&last| (last as f64) < end) {
            let next = plan.next(last as f64);
            polls.push(last + next.unwrap_or_else(|| back_off(last as f64)));
        }
        polls
    }

    #[test]
    fn what_always_takes_as_long_is_asked_for_once() {
        assert_eq!(polls(&plan(&[23.4; 60], 1.0).0, 23.4), [0, 24]);
    }

    #[test]
    fn between_two_crowds_nobody_asks() {
        let mut durations = vec![9.5; 40];
        durations.extend([59.5; 40]);
        let (plan, _) = plan(&durations, 1.0);
        assert_eq!(polls(&plan, 9.5), [0, 10]);
        assert_eq!(polls(&plan, 59.5), [0, 10, 60]);
    }

    #[test]
    fn dearer_polls_are_fewer() {
        let durations: Vec<f64> = (0..100).map(|n| 20.0 + f64::from(n) / 5.0).collect();
        let counts = [0.1, 1.0, 10.0].map(|cost| polls(&plan(&durations, cost).0, 35.0).len());
        assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
    }

    proptest! {
        #[test]
        fn no_plan_asks_more_often_than_each_second_or_gives_up(
            durations in vec(0.0..100_000.0, 1..129),
            poll_cost in 0.001..100.0,
            age in 0.0..200_000.0,
        ) {
            let (plan, ahead) = plan(&durations, poll_cost);
            prop_assert!(plan.next(age).is_none_or(|next| next >= 1));
            let ahead = ahead.at(age);
            prop_assert!(ahead.is_finite() && ahead > 0.0, "{}", ahead);
            let longest = durations.iter().copied().fold(0.0, f64::max);
            prop_assert!(plan.next(longest).is_some());
        }
    }
}
