//! The last samples of a kind, each job once.

use std::collections::VecDeque;

use super::sample::Sample;

/// The last [`MAX_SAMPLES`] samples of a kind, sorted by the end of their jobs.
///
/// A process may read jobs in any order and repeatedly. Each counts once: a job in the history is
/// recognized by its id, and a job that has left the history ended before the oldest sample. So
/// processes that saw the same jobs have the same history.
///
/// Samples are not aggregated, since [`change`](super::change) needs their order.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// The job of each sample, side by side, so that all are compared in a few vector instructions.
    jobs: VecDeque<u32>,
}

/// The maximum number of samples, which take 3.5 kB. Fewer would miss rare durations, and more
/// would adapt too slowly.
const MAX_SAMPLES: usize = 128;

impl History {
    /// Inserts a sample unless the history has it, or its job ended before all others of a full
    /// history. Returns `true` if it was inserted.
    ///
    /// `now` is in milliseconds since the Unix epoch.
    pub(super) fn insert(&mut self, mut sample: Sample, now: u64) -> bool {
        let (front, back) = self.jobs.as_slices();
        if front.contains(&sample.job) || back.contains(&sample.job) {
            return false;
        }
        // No job has ended in the future. Without this, a sample from a fast clock would stay the
        // latest until other clocks catch up.
        sample.ended_at = sample.ended_at.min(now);
        let future = self.samples.iter_mut().rev();
        let future = future.take_while(|known| known.ended_at > now);
        future.for_each(|known| known.ended_at = now);
        let last = self.samples.back();
        let mut index = if last.is_none_or(|last| last.ended_at <= sample.ended_at) {
            self.samples.len()
        } else {
            self.samples
                .partition_point(|known| known.ended_at <= sample.ended_at)
        };
        if self.samples.len() == MAX_SAMPLES {
            if index == 0 {
                return false;
            }
            self.samples.pop_front();
            self.jobs.pop_front();
            index -= 1;
        }
        if index == self.samples.len() {
            self.samples.push_back(sample);
            self.jobs.push_back(sample.job);
        } else {
            self.samples.insert(index, sample);
            self.jobs.insert(index, sample.job);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Returns how long the jobs were queued, in seconds.
    pub(super) fn queued(&self) -> Vec<f64> {
        let queued = self.samples.iter().map(|sample| sample.queued);
        queued.map(from_thousandths).collect()
    }

    /// Returns how long the jobs ran, in seconds.
    pub(super) fn ran(&self) -> Vec<f64> {
        let ran = self.samples.iter().map(|sample| sample.ran);
        ran.map(from_thousandths).collect()
    }

    /// Returns the slowdowns of the jobs that reported progress.
    pub(super) fn slowdowns(&self) -> Vec<f64> {
        let slowdowns = self.samples.iter().map(|sample| sample.slowdown);
        let known = slowdowns.filter(|&slowdown| slowdown > 0);
        known.map(from_thousandths).collect()
    }
}

fn from_thousandths(count: u32) -> f64 {
    f64::from(count) / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn sample(job: u32, ended_at: u64) -> Sample {
        Sample {
            ended_at,
            job,
            queued: 0,
            ran: 1,
            slowdown: 0,
        }
    }

    fn jobs(history: &History) -> Vec<u32> {
        history.samples.iter().map(|sample| sample.job).collect()
    }

    #[test]
    fn job_seen_twice_counts_once() {
        let mut history = History::default();
        assert!(history.insert(sample(1, 10), 20));
        assert!(!history.insert(sample(1, 10), 20));
        // The store's clock and this process's may differ.
        assert!(!history.insert(sample(1, 12), 20));
        assert_eq!(jobs(&history), [1]);
    }

    #[test]
    fn sample_from_a_fast_clock_is_not_the_latest() {
        let mut history = History::default();
        history.insert(sample(1, 9_999), 10);
        history.insert(sample(2, 11), 11);
        assert_eq!(jobs(&history), [1, 2]);
        // The clock of this process was set back.
        history.insert(sample(3, 7), 7);
        assert_eq!(jobs(&history), [1, 2, 3]);
    }

    #[test]
    fn full_history_ignores_older_samples() {
        let mut history = History::default();
        for job in 0..130 {
            history.insert(sample(job, 100 + u64::from(job)), 1_000);
        }
        assert!(!history.insert(sample(777, 5), 1_000));
        assert!(!history.insert(sample(1, 101), 1_000), "it has left");
        assert_eq!(jobs(&history), (2..130).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn order_and_repetition_make_no_difference(
            order in (0_u32..300).prop_flat_map(|count| {
                Just((0..count).collect::<Vec<_>>()).prop_shuffle()
            }),
            again in vec(0_usize..300, 0..300),
        ) {
            let repeated = again.iter().filter_map(|&index| order.get(index));
            let mut history = History::default();
            for &job in order.iter().chain(repeated) {
                history.insert(sample(job, job.into()), 1_000);
            }
            let count = order.len() as u32;
            let last = count.saturating_sub(MAX_SAMPLES as u32)..count;
            prop_assert_eq!(jobs(&history), last.collect::<Vec<_>>());
        }
    }
}
