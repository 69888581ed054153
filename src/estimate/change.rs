//! Whether durations have changed of late; they come in the order in which they were seen, in seconds.

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

/// Those that say something of the next, sorted: where the latest differ from those before, the latest alone.
pub(super) fn recent(all: Vec<f64>) -> Vec<f64> {
    sorted(latest(all))
}

/// The same, each as it would be now where they have grown or shrunk steadily.
pub(super) fn projected(all: Vec<f64>) -> Vec<f64> {
    let mut latest = latest(all);
    if let Some(growth) = trend(&latest) {
        let count = latest.len() as i32;
        for (before, value) in (1..=count).rev().zip(&mut latest) {
            *value *= growth.powi(before);
        }
    }
    sorted(latest)
}

fn latest(mut all: Vec<f64>) -> Vec<f64> {
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

    fn seconds(millis: impl IntoIterator<Item = u32>) -> Vec<f64> {
        millis
            .into_iter()
            .map(|millis| f64::from(millis) / 1e3)
            .collect()
    }

    #[test]
    fn where_the_latest_differ_the_older_are_forgotten() {
        let slow = (0..100).map(|n| 20_000 + n % 10);
        let fast = (0..10).map(|n| 5_000 + n);
        let recent = recent(seconds(slow.chain(fast)));
        assert!(recent.iter().all(|&seconds| seconds < 6.0), "{recent:?}");
    }

    #[test]
    fn where_nothing_has_changed_all_count() {
        let slow = (0..100).map(|n| 20_000 + n % 10);
        assert_eq!(recent(seconds(slow)).len(), 100);
    }

    #[test]
    fn what_grows_steadily_is_seen_as_it_is_now() {
        // From 10 s by one percent each, one longer and one shorter than that.
        let growing = (0..100).map(|n| {
            let noise = if n % 2 == 0 { 1.1 } else { 0.9 };
            (10_000.0 * 1.01_f64.powi(n) * noise) as u32
        });
        let now = 10.0 * 1.01_f64.powi(100);
        let projected = projected(seconds(growing));
        let part = projected[projected.len() / 2] / now;
        assert!((0.9..1.1).contains(&part), "{part}");
    }

    #[test]
    fn one_that_stands_out_changes_nothing() {
        let usual = (0..100).map(|n| 20_000 + n % 10);
        assert_eq!(recent(seconds(usual.chain([90_000]))).len(), 101);
    }

    proptest! {
        #[test]
        fn what_is_recent_is_some_of_the_last_sorted(values in vec(0.0..1e6, 1..128)) {
            let recent = recent(values.clone());
            prop_assert!(recent.is_sorted());
            let last = sorted(values[values.len() - recent.len()..].to_vec());
            prop_assert_eq!(&recent, &last);
        }

        #[test]
        fn what_is_projected_is_not_far_from_what_was(values in vec(1_u32.., 1..128)) {
            let values = seconds(values);
            let (recent, projected) = (recent(values.clone()), projected(values));
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
