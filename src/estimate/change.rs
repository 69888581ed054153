//! Detects whether recent durations differ from earlier ones, and whether they follow a trend.
//!
//! Durations are in seconds and sorted by the end of their jobs.

/// A trend that changes durations by more than this factor is not steady.
const MAX_TREND_FACTOR: f64 = 4.0;

/// Numbers of recent durations to compare with those before them, from fewest to most.
const RECENT_COUNTS: [usize; 7] = [8, 12, 16, 24, 32, 48, 64];

/// The maximum number of earlier durations to compare with. Under a slow drift, the oldest would
/// mislead.
const MAX_EARLIER: usize = 64;

/// The Kolmogorov–Smirnov statistic above which two samples have different distributions.
///
/// By chance it is exceeded once in 20,000 tests. It has to be that rare, since each new job is a
/// test.
const KS_THRESHOLD: f64 = 2.3;

/// The minimum slope of a trend, in standard errors.
const MIN_TREND_ERRORS: f64 = 4.0;

/// Returns the durations that still apply, sorted: only the recent ones if they differ from the
/// earlier ones.
pub(super) fn recent(all: Vec<f64>) -> Vec<f64> {
    sorted(since_change(all))
}

/// Returns the same durations, each extrapolated to now if they follow a steady trend.
pub(super) fn projected(all: Vec<f64>) -> Vec<f64> {
    let mut recent = since_change(all);
    if let Some(growth) = trend(&recent) {
        let count = recent.len() as i32;
        for (age, value) in (1..=count).rev().zip(&mut recent) {
            *value *= growth.powi(age);
        }
    }
    sorted(recent)
}

fn since_change(mut all: Vec<f64>) -> Vec<f64> {
    for recent in RECENT_COUNTS {
        let Some(split) = all
            .len()
            .checked_sub(recent)
            .filter(|&earlier| earlier >= recent)
        else {
            break;
        };
        let (earlier, recent) = all.split_at(split);
        let earlier = &earlier[earlier.len().saturating_sub(MAX_EARLIER)..];
        if ks_statistic(earlier, recent) > KS_THRESHOLD {
            all.drain(..split);
            break;
        }
    }
    all
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Returns the growth factor from one value to the next, if there is a steady trend.
///
/// Fits a least-squares line through the logarithms.
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
    let is_certain = values.len() >= 2 * RECENT_COUNTS[0] && slope.abs() > MIN_TREND_ERRORS * error;
    let is_steady = slope.abs() * count < MAX_TREND_FACTOR.ln();
    (is_certain && is_steady).then(|| slope.exp())
}

/// Returns the two-sample Kolmogorov–Smirnov statistic: the largest distance between the empirical
/// distributions, scaled by the sample sizes.
fn ks_statistic(one: &[f64], other: &[f64]) -> f64 {
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
        let seconds = millis.into_iter().map(|millis| f64::from(millis) / 1e3);
        seconds.collect()
    }

    #[test]
    fn change_drops_the_earlier_durations() {
        let slow = (0..100).map(|n| 20_000 + n % 10);
        let fast = (0..10).map(|n| 5_000 + n);
        let recent = recent(seconds(slow.chain(fast)));
        assert!(recent.iter().all(|&seconds| seconds < 6.0), "{recent:?}");
    }

    #[test]
    fn all_durations_count_without_a_change() {
        let slow = (0..100).map(|n| 20_000 + n % 10);
        assert_eq!(recent(seconds(slow)).len(), 100);
    }

    #[test]
    fn steady_growth_is_extrapolated() {
        // One percent each from 10 s on, with 10 % of noise.
        let growing = (0..100).map(|n| {
            let noise = if n % 2 == 0 { 1.1 } else { 0.9 };
            (10_000.0 * 1.01_f64.powi(n) * noise) as u32
        });
        let now = 10.0 * 1.01_f64.powi(100);
        let projected = projected(seconds(growing));
        let ratio = projected[projected.len() / 2] / now;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn outlier_is_not_a_change() {
        let usual = (0..100).map(|n| 20_000 + n % 10);
        assert_eq!(recent(seconds(usual.chain([90_000]))).len(), 101);
    }

    proptest! {
        #[test]
        fn recent_durations_are_the_last_sorted(values in vec(0.0..1e6, 1..128)) {
            let recent = recent(values.clone());
            prop_assert!(recent.is_sorted());
            let last = sorted(values[values.len() - recent.len()..].to_vec());
            prop_assert_eq!(&recent, &last);
        }

        #[test]
        fn projection_stays_near_the_durations(values in vec(1_u32.., 1..128)) {
            let values = seconds(values);
            let (recent, projected) = (recent(values.clone()), projected(values));
            let ends = |values: &[f64]| (values[0], values[values.len() - 1]);
            let (recent, projected) = (ends(&recent), ends(&projected));
            let (least, most) = (recent.0 / MAX_TREND_FACTOR, recent.1 * MAX_TREND_FACTOR);
            prop_assert!(projected.0 >= least - 1e-9, "{} from {}", projected.0, recent.0);
            prop_assert!(projected.1 <= most + 1e-9, "{} from {}", projected.1, recent.1);
        }

        #[test]
        fn sample_does_not_differ_from_itself(values in vec(0.0..1e6, 1..64)) {
            prop_assert_eq!(ks_statistic(&values, &values), 0.0);
        }
    }
}
