//! When it is worth asking again where nothing is known.

use std::time::Duration;

/// The longest wait between two looks, in seconds.
pub(super) const LONGEST: u64 = 60;

/// The wait, in whole seconds, after a job has taken so long.
///
/// Where nothing else is known, a job that has taken so long takes about as long again. So a client
/// that obeys looks at ages that double, and learns of the end after at most twice the time it took.
pub(super) fn back_off(age: Duration) -> u64 {
    age.as_secs().clamp(1, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_at_least_a_second_and_at_most_a_minute_apart() {
        for (age, wait) in [(0, 1), (1, 1), (7, 7), (3600, 60)] {
            assert_eq!(back_off(Duration::from_secs(age)), wait);
        }
    }
}
