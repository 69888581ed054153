//! A receiver that an application names for one request.

use std::fmt;

use super::event_type::EventType;
use crate::protocol::shown_url;

/// The events of a job's end, which a target gets by default.
const ENDS: [EventType; 3] = [
    EventType::JobSucceeded,
    EventType::JobFailed,
    EventType::JobCanceled,
];

/// A receiver that is notified of one job, and the events that it gets.
///
/// ```
/// use tower_accepted::webhook::{EventType, Target};
///
/// let target = Target::new("https://hooks.example.com/jobs")
///     .events([EventType::JobProgress, EventType::JobSucceeded]);
/// # let _ = target;
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a target does nothing until `Webhooks::targets` returns it"]
pub struct Target {
    pub(crate) url: String,
    pub(crate) events: Vec<EventType>,
    pub(crate) is_get: bool,
}

impl Target {
    /// Creates a target that gets the events of the job's end: succeeded, failed and canceled.
    ///
    /// The URL is absolute, and `https` unless
    /// [`insecure_for_development`](super::Webhooks::insecure_for_development) allows `http`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            events: ENDS.to_vec(),
            is_get: false,
        }
    }

    /// Sets the events that the target gets.
    ///
    /// Events of a job's end are retried. `job.started` and `job.progress` are sent once at most,
    /// and progress every 500 ms at most.
    pub fn events(mut self, events: impl IntoIterator<Item = EventType>) -> Self {
        self.events = events.into_iter().collect();
        self
    }

    /// Notifies by a GET without content and without a signature, as OData's callbacks do.
    pub(crate) fn by_get(mut self) -> Self {
        self.is_get = true;
        self
    }
}

/// Leaves out the query of the URL, since it may be a secret.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &shown_url(&self.url))
            .field("events", &self.events)
            .field("is_get", &self.is_get)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_not_debugged() {
        let text = format!("{:?}", Target::new("https://a.example/b?token"));
        assert!(
            text.contains("a.example/b") && !text.contains("token"),
            "{text}"
        );
    }
}
