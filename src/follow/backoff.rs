//! Exponential backoff with jitter.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// The bounds of the pauses between polls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// Returns the pause before retry `attempt`, which counts from 0.
    pub(super) fn pause(self, attempt: u32) -> Duration {
        self.jittered(attempt, random_fraction())
    }

    /// Doubles with each attempt and applies equal jitter: half of the pause is fixed and
    /// `fraction` scales the other half. Clients that start together spread out.
    fn jittered(self, attempt: u32, fraction: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_add(1));
        let max = self.max.max(self.min);
        let whole = self.min.saturating_mul(doubled).min(max);
        (whole / 2 + (whole / 2).mul_f64(fraction)).max(self.min)
    }
}

/// Returns a random number from 0 up to 1.
///
/// std generates random keys for its hash maps. They suffice for jitter, so this feature needs no
/// crate for random numbers.
fn random_fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    // An `f64` represents 53 bits exactly.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_millis(500),
        max: Duration::from_secs(30),
    };

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let pauses = |fraction| {
            [0, 1, 2, 3, 5, 6, 40, u32::MAX]
                .map(|attempt| BACKOFF.jittered(attempt, fraction).as_millis())
        };
        assert_eq!(
            pauses(0.0),
            [500, 1000, 2000, 4000, 15000, 15000, 15000, 15000]
        );
        assert_eq!(
            pauses(1.0),
            [1000, 2000, 4000, 8000, 30000, 30000, 30000, 30000]
        );
    }

    #[test]
    fn random_fractions_differ_and_stay_below_one() {
        let fractions: Vec<_> = (0..100).map(|_| random_fraction()).collect();
        assert!(
            fractions
                .iter()
                .all(|fraction| (0.0..1.0).contains(fraction))
        );
        let mean = fractions.iter().sum::<f64>() / 100.0;
        assert!((0.3..0.7).contains(&mean), "{fractions:?}");
    }

    proptest! {
        #[test]
        fn pauses_stay_within_their_bounds(
            min in 0_u64..u64::MAX,
            max in 0_u64..u64::MAX,
            attempt: u32,
            fraction in 0.0_f64..=1.0,
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            let pause = Backoff { min, max }.jittered(attempt, fraction);
            prop_assert!(pause >= min && pause <= max.max(min));
        }
    }
}
