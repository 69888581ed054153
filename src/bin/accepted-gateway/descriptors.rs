//! The limit of open file descriptors, and the share of each use.

/// The lowest limit that leaves room for what the gateway itself needs.
const MIN_DESCRIPTORS: usize = 64;

/// The limit to raise to, if the system allows it. More connections than this have no ports.
#[cfg(unix)]
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// The most descriptors in reserve: for files, listeners, name look-ups, metrics and stores.
const MAX_RESERVE: usize = 64;

/// The most descriptors for callbacks: 256 requests, and 64 idle connections.
#[cfg(feature = "webhook")]
const MAX_CALLBACKS: usize = 320;

/// The shares of one process's file descriptors.
///
/// A connection of a client takes up to two: its own, and that of a call which never becomes a job,
/// or of the file of a result.
/// A call that may become a job outlives its client, so such calls have a share of their own.
/// Without it, jobs would take every descriptor, and no client could connect or poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescriptorShares {
    /// The number of calls to the upstream that may be in flight for jobs.
    pub(crate) calls: usize,
    /// The number of connections that clients may have.
    pub(crate) connections: usize,
    /// The number of connections to the receivers of callbacks.
    #[cfg(feature = "webhook")]
    pub(crate) callbacks: usize,
}

impl DescriptorShares {
    /// Raises the limit of this process, and divides it.
    pub(crate) fn acquire() -> Self {
        Self::of(raise_limit())
    }

    /// Returns half of the shares, for a process that also runs the upstream.
    pub(crate) fn halved(self) -> Self {
        Self {
            calls: self.calls.div_ceil(2),
            connections: self.connections.div_ceil(2),
            #[cfg(feature = "webhook")]
            callbacks: self.callbacks,
        }
    }

    /// Returns the shares if a quarter of the descriptors for calls is for callbacks instead, up to
    /// a maximum.
    #[cfg(feature = "webhook")]
    pub(crate) fn with_callbacks(self) -> Self {
        let callbacks = MAX_CALLBACKS.min(self.calls / 4);
        Self {
            calls: self.calls - callbacks,
            callbacks,
            ..self
        }
    }

    /// Returns the shares if each call may take a second descriptor, for the file of its body.
    pub(crate) fn with_body_files(self) -> Self {
        Self {
            calls: self.calls.div_ceil(2),
            ..self
        }
    }

    fn of(descriptors: usize) -> Self {
        let descriptors = descriptors.max(MIN_DESCRIPTORS);
        let usable = descriptors - MAX_RESERVE.min(descriptors / 4);
        Self {
            calls: usable / 2,
            connections: usable / 4,
            #[cfg(feature = "webhook")]
            callbacks: 0,
        }
    }
}

/// Raises the soft limit to the hard one, and returns the limit.
#[cfg(unix)]
fn raise_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let maximum = limit.maximum.unwrap_or(u64::MAX).min(MAX_DESCRIPTORS);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < maximum {
        let raised = Rlimit {
            current: Some(maximum),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = maximum,
            Err(error) => tracing::warn!(%error, "failed to raise the limit of file descriptors"),
        }
    }
    usize::try_from(current.min(MAX_DESCRIPTORS)).unwrap_or(usize::MAX)
}

/// Returns a limit that other systems do not reach.
#[cfg(not(unix))]
fn raise_limit() -> usize {
    1 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_reserve_fit_in_the_limit() {
        for descriptors in [64, 256, 1024, 1 << 20] {
            let shares = DescriptorShares::of(descriptors);
            let (calls, connections) = (shares.calls, shares.connections);
            let reserve = descriptors - calls - 2 * connections;
            assert!(calls >= 16 && connections >= 8, "{descriptors}");
            assert!((16..=66).contains(&reserve), "{descriptors}");
        }
        assert_eq!(DescriptorShares::of(0), DescriptorShares::of(64));
    }

    #[cfg(feature = "webhook")]
    #[test]
    fn callbacks_take_a_part_of_the_calls() {
        for (descriptors, callbacks) in [(64, 6), (1024, 120), (1 << 20, 320)] {
            let before = DescriptorShares::of(descriptors);
            let after = before.with_callbacks();
            assert_eq!(after.callbacks, callbacks);
            assert_eq!(after.calls + after.callbacks, before.calls);
            assert_eq!(after.connections, before.connections);
        }
    }
}
