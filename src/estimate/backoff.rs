//! The poll delay of a job without a forecast.

const MAX_DELAY_SECONDS: u64 = 60;

/// Returns the delay until the next poll, in whole seconds, for a job of this age in seconds.
///
/// Without other knowledge, a job is expected to take as long again as it has taken. Polls follow
/// after 1, 3, 7, 15 s and so on.
pub(super) fn backoff(age: f64) -> u64 {
    (age as u64).saturating_add(1).min(MAX_DELAY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_between_a_second_and_a_minute() {
        for (age, delay) in [(0.0, 1), (1.9, 2), (7.0, 8), (3600.0, 60)] {
            assert_eq!(backoff(age), delay);
        }
    }
}
