//! In place of `measure.rs` without the feature `metrics`: nothing.

use std::time::Duration;

pub(crate) fn describe() {}

pub(crate) fn accepted() {}

pub(crate) fn joined() {}

pub(crate) fn refused(_: &'static str) {}

pub(crate) fn ended(_: &'static str) {}

pub(crate) fn took(_: &str, _: bool, _: Duration, _: Duration) {}

pub(crate) fn reserved(_: usize) {}

pub(crate) fn released(_: usize) {}

/// Takes no room.
#[derive(Debug)]
pub(crate) struct Counted;

impl Counted {
    pub(crate) fn unfinished() -> Self {
        Self
    }

    pub(crate) fn waiter() -> Self {
        Self
    }

    pub(crate) fn stream() -> Self {
        Self
    }
}
