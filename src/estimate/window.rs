//! The last durations of a kind.

/// Durations in the order in which they came, the last 128 of them.
///
/// They are kept as they are: so many take half a kilobyte, less than any sketch of them would, none is
/// rounded, and their order tells whether they have changed of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// In milliseconds; a ring once it is full.
    values: Vec<u32>,
    /// Where in the ring the next one goes.
    next: usize,
}

/// How many durations are kept. Fewer miss what is rare, more are slow to forget.
const LENGTH: usize = 128;

/// By how many of the last it is seen whether they differ from those before.
const LATEST: [usize; 7] = [8, 12, 16, 24, 32, 48, 64];

/// How many of those before are looked at: where all change slowly, the oldest tell least.
const MOST_BEFORE: usize = 64;

/// The Kolmogorov–Smirnov statistic beyond which two samples are not taken to be of one distribution:
/// such a difference comes by chance once in a thousand times.
const DIFFERENT: f64 = 1.95;

impl Window {
    /// Takes one more, in milliseconds.
    pub(super) fn push(&mut self, value: u32) {
        match self.values.get_mut(self.next) {
            Some(oldest) => *oldest = value,
            None => self.values.push(value),
        }
        self.next = (self.next + 1) % LENGTH;
    }

    /// Those that say something of the next, in seconds and sorted: where the latest differ from those
    /// before, only the latest.
    pub(super) fn recent(&self) -> Vec<f64> {
        let (latest, oldest) = self.values.split_at(self.next);
        let in_order = oldest.iter().chain(latest);
        let mut all: Vec<f64> = in_order.map(|&millis| f64::from(millis) / 1e3).collect();
        for latest in LATEST {
            let Some(before) = all.len().checked_sub(latest).filter(|&left| left >= latest) else {
                break;
            };
            let (old, new) = all.split_at(before);
            let old = &old[old.len().saturating_sub(MOST_BEFORE)..];
            if difference(old, new) > DIFFERENT {
                all.drain(..before);
                break;
            }
        }
        all.sort_by(f64::total_cmp);
        all
    }
}

/// The statistic of Kolmogorov and Smirnov for two samples: the largest distance between their
/// distributions, for their sizes.
fn difference(one: &[f64], other: &[f64]) -> f64 {
    let sorted = |sample: &[f64]| {
        let mut sample = sample.to_vec();
        sample.sort_by(f64::total_cmp);
        sample
    };
    let (one, other) = (sorted(one), sorted(other));
    let (n, m) = (one.len() as f64, other.len() as f64);
    let (mut i, mut j, mut distance) = (0, 0, 0.0_f64);
    while let (Some(&a), Some(&b)) = (one.get(i), other.get(j)) {
        let value = a.min(b);
        i += one[i..].iter().take_while(|&&a| a <= value).count();
        j += other[j..].iter().take_while(|&&b| b <= value).count();
        distance = distance.max((i as f64 / n - j as f64 / m).abs());
    }
    distance * (n * m / (n + m)).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn window(values: impl IntoIterator<Item = u32>) -> Window {
        let mut window = Window::default();
        values.into_iter().for_each(|value| window.push(value));
        window
    }

    #[test]
    fn where_the_latest_differ_the_older_are_forgotten() {
        let slow = (0..100).map(|n| 20_000 + n % 10);
        let fast = (0..10).map(|n| 5_000 + n);
        let recent = window(slow.clone().chain(fast)).recent();
        assert!(recent.iter().all(|&seconds| seconds < 6.0), "{recent:?}");
        assert_eq!(window(slow).recent().len(), 100);
    }

    #[test]
    fn one_that_stands_out_changes_nothing() {
        let usual = (0..100).map(|n| 20_000 + n % 10);
        assert_eq!(window(usual.chain([90_000])).recent().len(), 101);
    }

    proptest! {
        #[test]
        fn what_is_recent_is_some_of_the_last_sorted(values in vec(any::<u32>(), 1..400)) {
            let recent = window(values.iter().copied()).recent();
            prop_assert!((1..=LENGTH).contains(&recent.len()));
            prop_assert!(recent.is_sorted());
            let mut last: Vec<_> = values[values.len() - recent.len()..].to_vec();
            last.sort_unstable();
            let last: Vec<_> = last.iter().map(|&millis| f64::from(millis) / 1e3).collect();
            prop_assert_eq!(recent, last);
        }

        #[test]
        fn a_sample_does_not_differ_from_itself(values in vec(0.0..1e6, 1..64)) {
            prop_assert_eq!(difference(&values, &values), 0.0);
        }
    }
}
