//! When it is worth asking again where nothing is known.

/// The longest wait between two looks, in seconds.
const LONGEST: u64 = 60;

/// The wait, in whole seconds, after a job has taken so many seconds.
///
/// Where nothing else is known, a job that has taken so long takes about as long again. So a client
/// that obeys looks after 1, 3, 7, 15 s and so on.
pub(super) fn back_off(age: f64) -> u64 {
    (age as u64).saturating_add(1).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_at_least_a_second_and_at_most_a_minute_apart() {
        for (age, wait) in [(0.0, 1), (1.9, 2), (7.0, 8), (3600.0, 60)] {
            assert_eq!(back_off(age), wait);
        }
    }
}
