//! Replaces `recorder.rs` without the feature `metrics`: its functions do nothing.

use std::time::Duration;

pub(crate) fn describe() {}

pub(crate) fn accepted() {}

pub(crate) fn joined() {}

pub(crate) fn refused(_: &'static str) {}

pub(crate) fn ended(_: &'static str) {}

pub(crate) fn took(_: &str, _: bool, _: Duration, _: Duration) {}

#[cfg(feature = "webhook")]
pub(crate) fn webhook_delivered(_: Duration) {}

#[cfg(feature = "webhook")]
pub(crate) fn webhook_failed(_: &'static str) {}

#[cfg(feature = "webhook")]
pub(crate) fn webhooks_pending(_: u64, _: Duration) {}

pub(crate) fn reserved(_: usize) {}

pub(crate) fn released(_: usize) {}

/// The counterpart of the recorder's guard, without a size.
#[derive(Debug)]
pub(crate) struct GaugeGuard;

impl GaugeGuard {
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
