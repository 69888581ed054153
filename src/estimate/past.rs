use std::time::Duration;

use super::{pace::Halfway, window::Window};

/// What is remembered of a kind's jobs: the last of those that succeeded.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub(super) queued: Window,
    pub(super) ran: Window,
    /// How the jobs that reported progress went on from the half: see [`Pace`](super::pace::Pace). In
    /// thousandths.
    pub(super) multiples: Window,
}

impl Past {
    pub(super) fn push(&mut self, queued: Duration, ran: Duration, halfway: &Halfway) {
        self.queued.push(millis(queued));
        self.ran.push(millis(ran));
        if let Some(multiple) = halfway.multiple(ran.as_secs_f64()) {
            self.multiples.push((multiple * 1e3) as u32);
        }
    }
}

/// Never 0: what takes no time would leave no time in which it is to be expected.
fn millis(duration: Duration) -> u32 {
    let millis = u32::try_from(duration.as_millis());
    millis.unwrap_or(u32::MAX).max(1)
}
