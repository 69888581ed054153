//! The receivers that are notified of a job.

use std::fmt;

use crate::protocol::shown_url;

/// A receiver of a job's webhooks, recorded when the job is accepted.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct CallbackTarget {
    /// The URL that webhooks are sent to. Its query may be a secret, so `Debug` leaves it out.
    pub url: String,
    /// The names of the events that it is notified of, such as `job.succeeded`.
    pub events: Vec<String>,
    /// The URL or path of the job's monitor, as webhooks name it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub monitor: String,
    /// `true` if the receiver gets a GET without content instead of a signed POST.
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

impl fmt::Debug for CallbackTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackTarget")
            .field("url", &shown_url(&self.url))
            .field("events", &self.events)
            .field("monitor", &self.monitor)
            .field("is_get", &self.is_get)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_a_target_is_not_debugged() {
        let target = CallbackTarget::new("https://a.example/b?token", []);
        let text = format!("{target:?}");
        assert!(text.contains("https://a.example/b\""), "{text}");
        assert!(!text.contains("token"), "{text}");
    }
}
