//! What reported progress says of the time that is left.

use std::time::Duration;

use super::back_off::back_off;

/// How a kind's jobs go on after a report: what was left then, as multiples of what would have been left,
/// had they gone on as before. In equally likely parts, from the least to the most.
#[derive(Debug, Clone)]
pub(super) struct Pace([f64; PARTS]);

const PARTS: usize = 16;

/// What is taken for granted where little is known: that a job goes on about as before.
const USUAL: Pace = Pace([
    0.63, 0.72, 0.78, 0.82, 0.87, 0.90, 0.94, 0.98, 1.02, 1.06, 1.11, 1.16, 1.21, 1.29, 1.39, 1.59,
]);

/// How many jobs are to have shown their pace before it is relied on.
const FEW: usize = 8;

/// The part below which it is too early to tell.
const LEAST_FRACTION: f64 = 0.05;

/// The least multiple: nothing is over at once.
const LEAST: f64 = 0.05;

/// In seconds, the same of time.
const LEAST_RUN: f64 = 1.0;

impl Pace {
    /// The pace of jobs whose multiples are these, sorted.
    pub(super) fn of(sorted: &[f64]) -> Self {
        match sorted.len() {
            count if count < FEW => USUAL,
            count => Self(std::array::from_fn(|part| {
                sorted[(2 * part + 1) * count / (2 * PARTS)]
            })),
        }
    }

    /// Half of how far apart all but the extremes are.
    pub(super) fn spread(&self) -> f64 {
        (self.0[13] - self.0[2]) / 2.0
    }

    /// How many seconds are left where a job is so far after so many seconds: half the time it is more.
    pub(super) fn median_left(&self, fraction: f64, ran: f64) -> Option<f64> {
        let can_tell = fraction >= LEAST_FRACTION && ran >= LEAST_RUN;
        can_tell.then(|| self.at(fraction).median() * ran * (1.0 - fraction) / fraction)
    }

    /// After how many whole seconds it is best to ask again for a job that was estimated, when it last
    /// reported, to run for `whole` seconds, and has run for `ran`.
    pub(super) fn next(&self, fraction: f64, whole: f64, ran: f64, poll_cost: f64) -> Option<u64> {
        if fraction < LEAST_FRACTION {
            return None;
        }
        let pace = self.at(fraction);
        // What was reported when is told by the estimate.
        let straight = whole / (fraction + (1.0 - fraction) * pace.median());
        let left = (1.0 - fraction) * straight;
        let since = ran - fraction * straight;
        let ends = pace.0.map(|multiple| multiple * left - since);
        let open = &ends[ends.partition_point(|&end| end <= 0.0)..];
        // It has lasted longer than any that is known.
        let Some(&last) = open.last() else {
            return Some(back_off(-ends[PARTS - 1]));
        };
        // To have all that end up to the one at `index`.
        let poll = |index: usize| (open[index] + open.get(index + 1).unwrap_or(&last)) / 2.0;
        // The least that is yet to be paid from each on, where it has not ended before: see `Plan`.
        let mut sums = [0.0; PARTS + 1];
        let mut first = 0;
        for from in (0..open.len()).rev() {
            let polls_cost = poll_cost * (open.len() - from) as f64;
            let (mut least, mut ended) = (f64::INFINITY, 0.0);
            for index in from..open.len() {
                ended += open[index];
                let late = poll(index) * (index + 1 - from) as f64 - ended;
                let sum = polls_cost + late + sums[index + 1];
                if sum < least {
                    (least, first) = (sum, index);
                }
            }
            sums[from] = least;
        }
        Some((poll(first).ceil() as u64).max(1))
    }

    /// The pace from there on: what is known of it from the half is the less certain, the more doublings there
    /// are to come.
    fn at(&self, fraction: f64) -> Self {
        let doublings = -fraction.log2();
        match doublings > 1.0 {
            true => Self(
                self.0
                    .map(|multiple| (1.0 + (multiple - 1.0) * doublings).max(LEAST)),
            ),
            false => self.clone(),
        }
    }

    fn median(&self) -> f64 {
        (self.0[PARTS / 2 - 1] + self.0[PARTS / 2]) / 2.0
    }
}

/// Of what a job reports while it runs, what is nearest to the half: from there it tells its pace.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Halfway {
    fraction: f64,
    /// In seconds.
    ran: f64,
}

impl Halfway {
    /// Takes note of a report of a call that has run for so long.
    pub(crate) fn see(&mut self, fraction: f64, ran: Duration) {
        let ran = ran.as_secs_f64();
        if (fraction - 0.5).abs() < (self.fraction - 0.5).abs() && ran > 0.0 {
            *self = Self { fraction, ran };
        }
    }

    /// What was left as a multiple of what would have been, had the job gone on as before; of one that ran
    /// for `whole` seconds.
    pub(super) fn multiple(&self, whole: f64) -> Option<f64> {
        let straight = self.ran * (1.0 - self.fraction) / self.fraction;
        let can_tell = self.fraction >= LEAST_FRACTION && straight > 0.0;
        can_tell.then(|| (whole - self.ran).max(0.0) / straight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn half_done_after_ten_seconds_is_done_after_ten_more() {
        assert_eq!(USUAL.median_left(0.5, 10.0), Some(10.0));
        let next = USUAL.next(0.5, 20.0, 10.0, 1.0).expect("a plan");
        assert!((9..=12).contains(&next), "{next}");
        let later = USUAL.next(0.5, 20.0, 15.0, 1.0).expect("a plan");
        assert!((4..=7).contains(&later), "{later}");
    }

    #[test]
    fn a_report_too_early_tells_nothing() {
        assert_eq!(USUAL.median_left(0.01, 10.0), None);
        assert_eq!(USUAL.median_left(0.5, 0.1), None);
        assert_eq!(USUAL.next(0.01, 20.0, 10.0, 1.0), None);
    }

    #[test]
    fn who_is_slow_in_the_second_half_is_known_for_it() {
        let pace = Pace::of(&[2.0; 20]);
        assert_eq!(pace.median_left(0.5, 10.0), Some(20.0));
        assert_eq!(pace.next(0.5, 30.0, 10.0, 1.0), Some(20));
    }

    #[test]
    fn what_is_reported_nearest_to_the_half_is_what_counts() {
        let mut halfway = Halfway::default();
        assert_eq!(halfway.multiple(30.0), None);
        for (fraction, ran) in [(0.1, 1), (0.4, 10), (0.9, 29)] {
            halfway.see(fraction, Duration::from_secs(ran));
        }
        let multiple = halfway.multiple(40.0).expect("it was half done");
        assert!((multiple - 2.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn a_pace_always_tells_a_time_to_ask(
            mut multiples in vec(0.0..100.0, 0..128),
            fraction in 0.05..=1.0,
            whole in 0.0..1e6,
            ran in 0.0..1e6,
        ) {
            multiples.sort_by(f64::total_cmp);
            let pace = Pace::of(&multiples);
            prop_assert!(pace.spread() >= 0.0);
            prop_assert!(pace.next(fraction, whole, ran, 1.0).is_some_and(|next| next >= 1));
            prop_assert!(pace.median_left(fraction, ran).is_none_or(|left| left >= 0.0));
        }
    }
}
