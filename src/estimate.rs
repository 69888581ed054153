//! When it is worth asking again.

use std::time::Duration;

/// The longest a client is told to wait between two looks.
const LONGEST: u64 = 60;

/// `Retry-After` for a job that is so old, in whole seconds.
///
/// Where nothing else is known, a job that has taken so long takes about as long again. So a client
/// that obeys looks at ages that double, and learns of the end after at most twice the time it took.
pub(crate) fn retry_after(age: Duration) -> u64 {
    age.as_secs().clamp(1, LONGEST)
}

/// `Retry-After` where there is no room: in whole seconds, short, since room comes with any job's
/// end.
pub(crate) const WHEN_FULL: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_at_least_a_second_and_at_most_a_minute_apart() {
        for (age, wait) in [(0, 1), (1, 1), (7, 7), (3600, 60)] {
            assert_eq!(retry_after(Duration::from_secs(age)), wait);
        }
    }
}
