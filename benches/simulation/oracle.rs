//! The best polling client, which knows the distribution of each job.

use super::scenario::Scenario;

/// The best delay at each whole second of a job's age, for a known distribution.
///
/// No client that polls at whole seconds finds the end sooner with as many polls.
pub(crate) struct Oracle(Vec<u64>);

/// Jobs hardly ever take as long.
const HORIZON_SECONDS: usize = 400;

/// The integration steps in a second.
const STEPS: usize = 64;

impl Oracle {
    /// Creates the oracle of the job with this number, for polls that cost `poll_cost` seconds.
    pub(crate) fn new(scenario: Scenario, job: usize, poll_cost: f64) -> Self {
        let survival = |age: f64| scenario.survival(job, age);
        let at: Vec<f64> = (0..=HORIZON_SECONDS)
            .map(|second| survival(second as f64))
            .collect();
        // The integral of the survival function from 0 to each second.
        let mut integral = vec![0.0];
        for second in 0..HORIZON_SECONDS {
            let middle = |part| second as f64 + (part as f64 + 0.5) / STEPS as f64;
            let within: f64 = (0..STEPS).map(|part| survival(middle(part))).sum();
            integral.push(integral[second] + within / STEPS as f64);
        }
        let mut sums = vec![0.0; HORIZON_SECONDS + 1];
        let mut next = vec![1; HORIZON_SECONDS + 1];
        for from in (0..HORIZON_SECONDS).rev() {
            let mut least = f64::INFINITY;
            for poll in from + 1..=HORIZON_SECONDS {
                let late = (poll - from) as f64 * at[from] - (integral[poll] - integral[from]);
                let sum = at[from] * poll_cost + late + sums[poll];
                if sum < least {
                    (least, next[from]) = (sum, (poll - from) as u64);
                }
                // A later poll costs even more lateness.
                if late > least {
                    break;
                }
            }
            sums[from] = least;
        }
        Self(next)
    }

    /// Returns the delay until the next poll at this age, in seconds.
    pub(crate) fn next(&self, age: u64) -> u64 {
        self.0[(age as usize).min(HORIZON_SECONDS)]
    }
}
