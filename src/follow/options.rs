use std::time::Duration;

use http::HeaderName;

use super::{Observer, origin::Origin, pace::Pace};

/// What a [`FollowAcceptedLayer`](super::FollowAcceptedLayer) sets.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) timeout: Option<Duration>,
    pub(super) answer_timeout: Duration,
    pub(super) max_polls: u32,
    pub(super) max_failures: u32,
    pub(super) max_redirects: u32,
    pub(super) max_document: usize,
    pub(super) pace: Pace,
    /// Zero: never asked for.
    pub(super) wait: Duration,
    pub(super) location_is_monitor: bool,
    pub(super) origins: Vec<Origin>,
    pub(super) shared_headers: Vec<HeaderName>,
    pub(super) observer: Option<Observer>,
    /// How long the wish to cancel may take; `None`: it is not sent.
    pub(super) cancel: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(3600)),
            answer_timeout: Duration::from_secs(30),
            max_polls: 3600,
            max_failures: 10,
            max_redirects: 10,
            max_document: 1 << 20,
            pace: Pace {
                shortest: Duration::from_millis(500),
                longest: Duration::from_secs(30),
            },
            wait: Duration::from_secs(30),
            location_is_monitor: false,
            origins: Vec::new(),
            shared_headers: Vec::new(),
            observer: None,
            cancel: None,
        }
    }
}
