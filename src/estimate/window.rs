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

/// By what factor they may have grown or shrunk in all, for that to be called steady.
const MOST_GROWTH: f64 = 4.0;

/// By how many of the last it is seen whether they differ from those before.
const LATEST: [usize; 7] = [8, 12, 16, 24, 32, 48, 64];

/// How many of those before are looked at: where all change slowly, the oldest tell least.
const MOST_BEFORE: usize = 64;

/// The Kolmogorov–Smirnov statistic beyond which two samples are not taken to be of one distribution:
/// such a difference comes by chance once in twenty thousand times, and is looked for after each job.
const DIFFERENT: f64 = 2.3;

/// How many times its own error a trend is to be before it is believed.
const CERTAIN: f64 = 4.0;

impl Window {
    /// Takes one more, in milliseconds.
    pub(super) fn push(&mut self, value: u32) {
        match self.values.get_mut(self.next) {
            Some(oldest) => *oldest = value,
            None => self.values.push(value),
        }
        self.next = (self.next + 1) % LENGTH;
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Those that say something of the next, in seconds and sorted: where the latest differ from those
    /// before, the latest alone.
    pub(super) fn recent(&self) -> Vec<f64> {
        sorted(self.latest())
    }

    /// The same, each as it would be now where they have grown or shrunk steadily.
    pub(super) fn projected(&self) -> Vec<f64> {
        let mut latest = self.latest();
        if let Some(growth) = trend(&latest) {
            let count = latest.len() as i32;
            for (before, value) in (1..=count).rev().zip(&mut latest) {
                *value *= growth.powi(before);
            }
        }
        sorted(latest)
    }

    /// In the order in which they came.
    fn latest(&self) -> Vec<f64> {
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
        all
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// By what factor values grow from each to the next, where they certainly do: a line through their logarithms,
/// by least squares.
fn trend(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let logarithm = |(index, value): (usize, &f64)| (index as f64, value.max(1e-3).ln());
    let points = || values.iter().enumerate().map(logarithm);
    let mean = points().map(|(_, y)| y).sum::<f64>() / count;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points() {
        let (x, y) = (x - (count - 1.0) / 2.0, y - mean);
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    let slope = xy / xx;
    let error = ((yy - slope * xy).max(0.0) / (count - 2.0) / xx).sqrt();
    let is_certain = values.len() >= 2 * LATEST[0] && slope.abs() > CERTAIN * error;
    // What has changed more than that has not done so steadily.
    let is_steady = slope.abs() * count < MOST_GROWTH.ln();
    (is_certain && is_steady).then(|| slope.exp())
}

/// The statistic of Kolmogorov and Smirnov for two samples: the largest distance between their
/// distributions, for their sizes.
fn difference(one: &[f64], other: &[f64]) -> f64 {
    let (one, other) = (sorted(one.to_vec()), sorted(other.to_vec()));
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
    fn what_grows_steadily_is_seen_as_it_is_now() {
        // From 10 s by one percent each, one longer and one shorter than that.
        let growing = (0..100).map(|n| {
            let noise = if n % 2 == 0 { 1.1 } else { 0.9 };
            (10_000.0 * 1.01_f64.powi(n) * noise) as u32
        });
        let now = 10.0 * 1.01_f64.powi(100);
        let projected = window(growing).projected();
        let part = projected[projected.len() / 2] / now;
        assert!((0.9..1.1).contains(&part), "{part}");
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
            let last = values[values.len() - recent.len()..].iter();
            let last = sorted(last.map(|&millis| f64::from(millis) / 1e3).collect());
            prop_assert_eq!(&recent, &last);
        }

        #[test]
        fn what_is_projected_is_not_far_from_what_was(values in vec(1_u32.., 1..200)) {
            let (recent, projected) = (window(values.clone()).recent(), window(values).projected());
            let [was, is] = [recent, projected].map(|values| (values[0], values[values.len() - 1]));
            prop_assert!(is.0 >= was.0 / MOST_GROWTH - 1e-9, "{} from {}", is.0, was.0);
            prop_assert!(is.1 <= was.1 * MOST_GROWTH + 1e-9, "{} from {}", is.1, was.1);
        }

        #[test]
        fn a_sample_does_not_differ_from_itself(values in vec(0.0..1e6, 1..64)) {
            prop_assert_eq!(difference(&values, &values), 0.0);
        }
    }
}
