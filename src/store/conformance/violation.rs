//! The failure of a check.

use std::{
    error, fmt,
    future::Future,
    panic::Location,
    time::{Duration, SystemTime},
};

use tokio::{select, time::sleep};

/// The time limit of each step of a check. Only a failure takes that long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a check, or of a step of one.
pub(super) type CheckResult<T = ()> = Result<T, Violation>;

/// A broken promise, and where the check noticed it.
#[derive(Debug)]
pub(super) struct Violation {
    text: String,
    location: &'static Location<'static>,
}

impl Violation {
    #[track_caller]
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            location: Location::caller(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.location)
    }
}

/// An error of the store itself. No check provokes one.
impl<E: error::Error> From<E> for Violation {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(format!("the store returned an error: {error}"))
    }
}

/// Fails with `expected` unless it is true.
#[track_caller]
pub(super) fn ensure(is_true: bool, expected: &str) -> CheckResult {
    if is_true {
        Ok(())
    } else {
        Err(Violation::new(format!("expected {expected}")))
    }
}

/// Fails unless both values of `what` are equal.
#[track_caller]
pub(super) fn ensure_eq<T: PartialEq + fmt::Debug>(
    what: &str,
    actual: T,
    expected: T,
) -> CheckResult {
    if actual == expected {
        Ok(())
    } else {
        let text = format!("{what}: expected {expected:?}, got {actual:?}");
        Err(Violation::new(text))
    }
}

/// Fails unless both times of `what` are there, and equal to the millisecond.
#[track_caller]
pub(super) fn ensure_same_millisecond(
    what: &str,
    actual: Option<SystemTime>,
    expected: SystemTime,
) -> CheckResult {
    let difference = actual.map(|actual| {
        let later = actual.duration_since(expected);
        later.unwrap_or_else(|earlier| earlier.duration())
    });
    // A store may round either way.
    if difference.is_some_and(|difference| difference <= Duration::from_millis(1)) {
        Ok(())
    } else {
        let text = format!("{what}: expected {expected:?} to the millisecond, got {actual:?}");
        Err(Violation::new(text))
    }
}

/// Waits for `future`, and fails with `expected` if that takes too long.
#[track_caller]
pub(super) fn within<F: Future>(
    expected: &str,
    future: F,
) -> impl Future<Output = CheckResult<F::Output>> {
    let location = Location::caller();
    async move {
        select! {
            // The timeout first: it must not hide that the store forgot to wake the task.
            biased;
            () = sleep(TIMEOUT) => {
                let text = format!("expected {expected} within {TIMEOUT:?}");
                Err(Violation { text, location })
            }
            output = future => Ok(output),
        }
    }
}
