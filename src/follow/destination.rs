//! The next request on the way from a 202 to its response.

use super::origin::FollowTarget;

/// The resource that the client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Monitor,
    Result,
    /// The result, while it is produced.
    Stream,
}

/// The next request, and the URI that its redirects started from.
pub(super) struct Destination {
    pub(super) goal: Goal,
    pub(super) start: FollowTarget,
    pub(super) at: FollowTarget,
    pub(super) redirects: u32,
}

impl Destination {
    pub(super) fn new(goal: Goal, start: FollowTarget) -> Self {
        Self {
            goal,
            at: start.clone(),
            start,
            redirects: 0,
        }
    }

    /// Returns to the URI before any temporary redirects.
    pub(super) fn restart(&mut self) {
        self.at = self.start.clone();
        self.redirects = 0;
    }
}
