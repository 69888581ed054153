//! Who knows how long jobs take, as well as it can be known beforehand.

use super::scenario::Scenario;

/// The best there is to do for one who knows the distribution: for each whole second of a job's age, after
/// how many it is best to ask again. Nobody who asks at whole seconds finds the end sooner with as many
/// polls.
pub(crate) struct Oracle(Vec<u64>);

/// In seconds: hardly a job takes as long.
const HORIZON: usize = 400;

/// Into how many parts a second is taken apart to integrate.
const PARTS: usize = 64;

impl Oracle {
    /// Knows the job of this number; with polls that cost so many seconds each.
    pub(crate) fn new(scenario: Scenario, job: usize, poll_cost: f64) -> Self {
        let survival = |age: f64| scenario.survival(job, age);
        let at: Vec<f64> = (0..=HORIZON)
            .map(|second| survival(second as f64))
            .collect();
        // The integral of the survival, from 0 to each second.
        let mut integral = vec![0.0];
        for second in 0..HORIZON {
            let middle = |part| second as f64 + (part as f64 + 0.5) / PARTS as f64;
            let within: f64 = (0..PARTS).map(|part| survival(middle(part))).sum();
            integral.push(integral[second] + within / PARTS as f64);
        }
        let mut sums = vec![0.0; HORIZON + 1];
        let mut next = vec![1; HORIZON + 1];
        for from in (0..HORIZON).rev() {
            let mut least = f64::INFINITY;
            for poll in from + 1..=HORIZON {
                let late = (poll - from) as f64 * at[from] - (integral[poll] - integral[from]);
                let sum = at[from] * poll_cost + late + sums[poll];
                if sum < least {
                    (least, next[from]) = (sum, (poll - from) as u64);
                }
                // Later still is no better: what is certain to be late by then is too late.
                if late > least {
                    break;
                }
            }
            sums[from] = least;
        }
        Self(next)
    }

    /// After how many seconds to ask again at this age.
    pub(crate) fn next(&self, age: u64) -> u64 {
        self.0[(age as usize).min(HORIZON)]
    }
}
