//! The addresses that are notified of a job.

/// An address that is notified when a job changes, recorded with the job when it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct CallbackTarget {
    /// The URL that notifications are sent to.
    pub url: String,
    /// The names of the events that it is notified of, such as `job.succeeded`.
    pub events: Vec<String>,
    /// The address of the job's monitor, as notifications name it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub monitor: String,
    /// Set if the address is notified by a GET without content, instead of a signed POST.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_get: bool,
}

impl CallbackTarget {
    /// Creates a target that is notified by a signed POST.
    pub fn new(url: impl Into<String>, events: impl IntoIterator<Item = String>) -> Self {
        Self {
            url: url.into(),
            events: events.into_iter().collect(),
            monitor: String::new(),
            is_get: false,
        }
    }

    /// Returns `true` if the target is notified of the event.
    pub(crate) fn wants(&self, event: &str) -> bool {
        self.events.iter().any(|wanted| wanted == event)
    }
}
