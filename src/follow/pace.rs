use std::time::Duration;

/// How far apart questions are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl Pace {
    /// The pause after so many questions to which nothing was said about when to come again.
    ///
    /// Equal jitter: half of it grows, doubling each time, and half is left to chance, so that
    /// clients which began together don't stay together. `chance` is from 0 to 1.
    pub(super) fn backoff(self, attempt: u32, chance: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_add(1));
        let longest = self.longest.max(self.shortest);
        let whole = self.shortest.saturating_mul(doubled).min(longest);
        (whole / 2 + (whole / 2).mul_f64(chance)).max(self.shortest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        shortest: Duration::from_millis(500),
        longest: Duration::from_secs(30),
    };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = |chance| {
            [0, 1, 2, 3, 5, 6, 40, u32::MAX]
                .map(|attempt| PACE.backoff(attempt, chance).as_millis())
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

    proptest! {
        #[test]
        fn no_pause_is_out_of_bounds(
            shortest in 0_u64..u64::MAX,
            longest in 0_u64..u64::MAX,
            attempt: u32,
            chance in 0.0_f64..=1.0,
        ) {
            let shortest = Duration::from_millis(shortest);
            let longest = Duration::from_millis(longest);
            let pause = Pace { shortest, longest }.backoff(attempt, chance);
            prop_assert!(pause >= shortest && pause <= longest.max(shortest));
        }
    }
}
