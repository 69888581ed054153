//! The addresses that are notified of a job.

/// An address that is notified when a job changes, recorded with the job when it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct CallbackTarget {
    /// The URL that notifications are sent to.
    pub url: String,
    /// The names of the events that it is notified of, such as `job.succeeded`.
    pub events: Vec<String>,
}

impl CallbackTarget {
    /// Creates a target.
    pub fn new(url: impl Into<String>, events: impl IntoIterator<Item = String>) -> Self {
        Self {
            url: url.into(),
            events: events.into_iter().collect(),
        }
    }
}
