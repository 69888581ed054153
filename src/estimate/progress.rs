//! Predicts the remaining time of a job from the progress that it reports.

use std::time::Duration;

use super::backoff::backoff;

/// The pace of a kind's jobs after the midpoint: quantiles of their slowdown, in ascending order.
///
/// The slowdown is the time that a job took after a report, divided by the time that it would have
/// taken at its previous pace.
#[derive(Debug, Clone)]
pub(super) struct ProgressModel([f64; QUANTILES]);

const QUANTILES: usize = 16;

/// The prior, for kinds with few samples: jobs go on at about the same pace.
const PRIOR: ProgressModel = ProgressModel([
    0.63, 0.72, 0.78, 0.82, 0.87, 0.90, 0.94, 0.98, 1.02, 1.06, 1.11, 1.16, 1.21, 1.29, 1.39, 1.59,
]);

/// With fewer samples, the prior applies.
const MIN_SAMPLES: usize = 8;

/// Reports of a smaller fraction are too early for a prediction.
const MIN_FRACTION: f64 = 0.05;

/// Reports before this are too early for a prediction.
const MIN_RUN_SECONDS: f64 = 1.0;

/// The smallest slowdown that is extrapolated for an early report.
const MIN_SLOWDOWN: f64 = 0.05;

impl ProgressModel {
    pub(super) fn new(sorted_slowdowns: &[f64]) -> Self {
        let count = sorted_slowdowns.len();
        if count < MIN_SAMPLES {
            return PRIOR;
        }
        Self(std::array::from_fn(|part| {
            sorted_slowdowns[(2 * part + 1) * count / (2 * QUANTILES)]
        }))
    }

    /// Returns half the distance between two quantiles near the 16th and the 84th percentile.
    pub(super) fn spread(&self) -> f64 {
        (self.0[13] - self.0[2]) / 2.0
    }

    /// Returns the median of the remaining time in seconds, for a job that reports this fraction
    /// after `ran` seconds.
    pub(super) fn median_remaining(&self, fraction: f64, ran: f64) -> Option<f64> {
        let is_late_enough = fraction >= MIN_FRACTION && ran >= MIN_RUN_SECONDS;
        is_late_enough.then(|| self.after(fraction).median() * ran * (1.0 - fraction) / fraction)
    }

    /// Returns the best delay until the next poll in whole seconds.
    ///
    /// `expected` is the run time in seconds that the estimate at the last report implied. The job
    /// has run for `ran` seconds by now.
    pub(super) fn next_poll(
        &self,
        fraction: f64,
        expected: f64,
        ran: f64,
        poll_cost: f64,
    ) -> Option<u64> {
        if fraction < MIN_FRACTION {
            return None;
        }
        let model = self.after(fraction);
        // The estimate was made from the report, so it contains the time of the report.
        let at_constant_pace = expected / (fraction + (1.0 - fraction) * model.median());
        let remaining = (1.0 - fraction) * at_constant_pace;
        let since_report = ran - fraction * at_constant_pace;
        let ends = model.0.map(|slowdown| slowdown * remaining - since_report);
        let open = &ends[ends.partition_point(|&end| end <= 0.0)..];
        let Some(&last) = open.last() else {
            // The job has lasted longer than any sample.
            return Some(backoff(-ends[QUANTILES - 1]));
        };
        // A poll that finds all ends up to `index` lies between that end and the next.
        let poll = |index: usize| (open[index] + open.get(index + 1).unwrap_or(&last)) / 2.0;
        // The least cost from each end on: see `PollPlan`.
        let mut costs = [0.0; QUANTILES + 1];
        let mut first = 0;
        for from in (0..open.len()).rev() {
            let polls_cost = poll_cost * (open.len() - from) as f64;
            let (mut least, mut ended) = (f64::INFINITY, 0.0);
            for index in from..open.len() {
                ended += open[index];
                let late = poll(index) * (index + 1 - from) as f64 - ended;
                let cost = polls_cost + late + costs[index + 1];
                if cost < least {
                    (least, first) = (cost, index);
                }
            }
            costs[from] = least;
        }
        Some((poll(first).ceil() as u64).max(1))
    }

    /// Returns the model for the time after this fraction.
    ///
    /// The samples are from the midpoint on. A report before it is less certain by each doubling
    /// that is still to come.
    fn after(&self, fraction: f64) -> Self {
        let doublings = -fraction.log2();
        if doublings <= 1.0 {
            return self.clone();
        }
        let widened = |slowdown: f64| (1.0 + (slowdown - 1.0) * doublings).max(MIN_SLOWDOWN);
        Self(self.0.map(widened))
    }

    fn median(&self) -> f64 {
        (self.0[QUANTILES / 2 - 1] + self.0[QUANTILES / 2]) / 2.0
    }
}

/// The progress report of a job that was nearest to the midpoint. It shows how the job went on
/// after it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MidpointSample {
    fraction: f64,
    /// In seconds.
    ran: f64,
}

impl MidpointSample {
    /// Records a report that a call made after running for `ran`.
    pub(crate) fn record(&mut self, fraction: f64, ran: Duration) {
        let ran = ran.as_secs_f64();
        if (fraction - 0.5).abs() < (self.fraction - 0.5).abs() && ran > 0.0 {
            *self = Self { fraction, ran };
        }
    }

    /// Returns the slowdown of a job that ran for `total` seconds, if it reported progress.
    pub(super) fn slowdown(&self, total: f64) -> Option<f64> {
        let at_constant_pace = self.ran * (1.0 - self.fraction) / self.fraction;
        let is_known = self.fraction >= MIN_FRACTION && at_constant_pace > 0.0;
        is_known.then(|| (total - self.ran).max(0.0) / at_constant_pace)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn second_half_takes_as_long_as_the_first() {
        assert_eq!(PRIOR.median_remaining(0.5, 10.0), Some(10.0));
        let next = PRIOR.next_poll(0.5, 20.0, 10.0, 1.0).expect("a delay");
        assert!((9..=12).contains(&next), "{next}");
        let later = PRIOR.next_poll(0.5, 20.0, 15.0, 1.0).expect("a delay");
        assert!((4..=7).contains(&later), "{later}");
    }

    #[test]
    fn early_report_predicts_nothing() {
        assert_eq!(PRIOR.median_remaining(0.01, 10.0), None);
        assert_eq!(PRIOR.median_remaining(0.5, 0.1), None);
        assert_eq!(PRIOR.next_poll(0.01, 20.0, 10.0, 1.0), None);
    }

    #[test]
    fn slower_second_half_is_learned() {
        let model = ProgressModel::new(&[2.0; 20]);
        assert_eq!(model.median_remaining(0.5, 10.0), Some(20.0));
        assert_eq!(model.next_poll(0.5, 30.0, 10.0, 1.0), Some(20));
    }

    #[test]
    fn report_nearest_to_the_midpoint_counts() {
        let mut midpoint = MidpointSample::default();
        assert_eq!(midpoint.slowdown(30.0), None);
        for (fraction, ran) in [(0.1, 1), (0.4, 10), (0.9, 29)] {
            midpoint.record(fraction, Duration::from_secs(ran));
        }
        let slowdown = midpoint.slowdown(40.0).expect("reported");
        assert!((slowdown - 2.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn model_always_returns_a_delay(
            mut slowdowns in vec(0.0..100.0, 0..128),
            fraction in 0.05..=1.0,
            expected in 0.0..1e6,
            ran in 0.0..1e6,
        ) {
            slowdowns.sort_by(f64::total_cmp);
            let model = ProgressModel::new(&slowdowns);
            prop_assert!(model.spread() >= 0.0);
            let delay = model.next_poll(fraction, expected, ran, 1.0);
            prop_assert!(delay.is_some_and(|delay| delay >= 1));
            prop_assert!(model.median_remaining(fraction, ran).is_none_or(|left| left >= 0.0));
        }
    }
}
