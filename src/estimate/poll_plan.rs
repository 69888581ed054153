//! The best delay until the next poll at each age of a job.

use super::{backoff::backoff, distribution::Distribution, grid::Grid};

/// The best delay until the next poll at each age, for an event such as the end of a job.
///
/// Frequent polls find the event soon; rare polls are cheap. `poll_cost` expresses a poll as a
/// time, so that both add up to one cost: *polls × poll cost + time from the event to the poll
/// that finds it*. The plan minimizes the expected cost by dynamic programming, from the last age
/// back to the first: the best delay at an age does not depend on earlier polls.
#[derive(Debug, Clone)]
pub(super) struct PollPlan {
    grid: Grid,
    /// The delay at the beginning of each cell, in seconds.
    delays: Box<[u32]>,
}

/// The expected cost of following a plan from each age on, in seconds, given that the event has not
/// come before.
#[derive(Debug)]
pub(super) struct ExpectedCost {
    grid: Grid,
    costs: Box<[f64]>,
}

impl PollPlan {
    /// Computes the plan for an event that follows a distribution. `poll_cost` is in seconds.
    ///
    /// `found` returns the cost that remains when a poll finds the event, given the seconds since
    /// the event. For the end of a job it is those seconds.
    pub(super) fn new(
        distribution: &Distribution,
        poll_cost: f64,
        found: impl Fn(f64) -> f64,
    ) -> (Self, ExpectedCost) {
        let (grid, survival) = (distribution.grid(), distribution.survival());
        let (cells, stride) = (grid.cells(), grid.stride());
        // An event counts as being in the middle of its cell.
        let found: Vec<f64> = (0..cells)
            .map(|before| found((before as f64 + 0.5) * grid.step()))
            .collect();
        let overdue_cost = overdue_cost(grid.horizon(), poll_cost);
        // Costs are weighted with the probability of reaching their age.
        let mut costs: Vec<f64> = survival.iter().map(|left| left * overdue_cost).collect();
        let mut delays: Vec<Option<u32>> = vec![None; cells];
        for poll in (1..=cells).rev() {
            let mut late = 0.0;
            for from in (0..poll).rev() {
                late += (survival[from] - survival[from + 1]) * found[poll - 1 - from];
                let step = poll - from;
                if step % stride != 0 {
                    continue;
                }
                let cost = survival[from] * poll_cost + late + costs[poll];
                // The first candidate replaces the initial value, which is for ages beyond the
                // grid.
                if delays[from].is_none() || cost < costs[from] {
                    costs[from] = cost;
                    delays[from] = Some(grid.seconds(step));
                }
            }
        }
        let delays = delays.iter().enumerate().map(|(cell, delay)| {
            // Near the end of the grid, every delay of whole seconds leads beyond it.
            delay.unwrap_or_else(|| overdue_delay(cell as f64 * grid.step(), poll_cost) as u32)
        });
        let plan = Self {
            delays: delays.collect(),
            grid,
        };
        let costs = costs.iter().zip(survival).map(|(cost, left)| cost / left);
        let costs = costs.collect();
        (plan, ExpectedCost { grid, costs })
    }

    /// Returns the best delay at this age, in whole seconds, at least 1; `None` beyond the grid.
    pub(super) fn next_poll(&self, age: f64) -> Option<u64> {
        self.grid.cell(age).map(|cell| self.delays[cell].into())
    }
}

impl ExpectedCost {
    /// Returns the expected cost from this age on, in seconds.
    pub(super) fn at(&self, age: f64) -> f64 {
        self.costs[self.grid.cell(age).unwrap_or(self.grid.cells())]
    }
}

/// Returns the best delay at an age beyond the grid, in whole seconds.
///
/// A job of age *a* that lasts as long again as often as not ends within the next second with
/// probability 1 / *a*. With polls every √(2 × poll cost × *a*) seconds, polls cost as much as late
/// notification, which is the minimum.
pub(super) fn overdue_delay(age: f64, poll_cost: f64) -> u64 {
    ((2.0 * poll_cost * age).sqrt() as u64).clamp(1, backoff(age))
}

/// Returns the expected cost at an age beyond the grid, in seconds.
fn overdue_cost(age: f64, poll_cost: f64) -> f64 {
    poll_cost + (2.0 * poll_cost * age).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn plan(durations: &[f64], poll_cost: f64) -> (PollPlan, ExpectedCost) {
        let mut sorted = durations.to_vec();
        sorted.sort_by(f64::total_cmp);
        let longest = sorted.last().copied().unwrap_or_default();
        let distribution = Distribution::from_sorted(&sorted, Grid::covering(longest));
        PollPlan::new(&distribution, poll_cost, |late| late)
    }

    /// Returns the ages of all polls up to the first that is not before `end`.
    fn polls(plan: &PollPlan, end: f64) -> Vec<u64> {
        let mut polls = vec![0];
        while let Some(&last) = polls.last().filter(|&&last| (last as f64) < end) {
            let delay = plan.next_poll(last as f64);
            polls.push(last + delay.unwrap_or_else(|| backoff(last as f64)));
        }
        polls
    }

    #[test]
    fn constant_duration_needs_one_poll() {
        assert_eq!(polls(&plan(&[23.4; 60], 1.0).0, 23.4), [0, 24]);
    }

    #[test]
    fn plan_skips_the_gap_between_clusters() {
        let mut durations = vec![9.5; 40];
        durations.extend([59.5; 40]);
        let (plan, _) = plan(&durations, 1.0);
        assert_eq!(polls(&plan, 9.5), [0, 10]);
        assert_eq!(polls(&plan, 59.5), [0, 10, 60]);
    }

    #[test]
    fn higher_poll_cost_means_fewer_polls() {
        let durations: Vec<f64> = (0..100).map(|n| 20.0 + f64::from(n) / 5.0).collect();
        let counts = [0.1, 1.0, 10.0].map(|cost| polls(&plan(&durations, cost).0, 35.0).len());
        assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
    }

    proptest! {
        #[test]
        fn delays_and_costs_are_finite_and_positive(
            durations in vec(0.0..100_000.0, 1..129),
            poll_cost in 0.001..100.0,
            age in 0.0..200_000.0,
        ) {
            let (plan, costs) = plan(&durations, poll_cost);
            prop_assert!(plan.next_poll(age).is_none_or(|delay| delay >= 1));
            let cost = costs.at(age);
            prop_assert!(cost.is_finite() && cost > 0.0, "{}", cost);
            let longest = durations.iter().copied().fold(0.0, f64::max);
            prop_assert!(plan.next_poll(longest).is_some());
        }
    }
}
