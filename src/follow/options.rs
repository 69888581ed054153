//! The settings of the following layer and their defaults.

use std::time::Duration;

use http::HeaderName;

use super::{Observer, backoff::Backoff, origin::Origin};

/// The settings of a [`FollowAcceptedLayer`](super::FollowAcceptedLayer).
#[derive(Debug, Clone)]
pub(super) struct FollowOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) answer_timeout: Duration,
    pub(super) max_polls: u32,
    pub(super) max_failures: u32,
    pub(super) max_redirects: u32,
    pub(super) max_document_bytes: usize,
    pub(super) backoff: Backoff,
    /// The longest `Prefer: wait` to send. If it is below one second, none is sent.
    pub(super) max_wait: Duration,
    pub(super) location_is_monitor: bool,
    /// Set if responses are streamed, and resumed after breaks.
    pub(super) is_streaming: bool,
    pub(super) origins: Vec<Origin>,
    pub(super) shared_headers: Vec<HeaderName>,
    pub(super) observer: Option<Observer>,
    /// The time limit of the cancel request. `None` if a drop does not cancel the job.
    pub(super) cancel_timeout: Option<Duration>,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(3600)),
            answer_timeout: Duration::from_secs(30),
            max_polls: 3600,
            max_failures: 10,
            max_redirects: 10,
            max_document_bytes: 1 << 20,
            backoff: Backoff {
                min: Duration::from_millis(500),
                max: Duration::from_secs(30),
            },
            max_wait: Duration::from_secs(30),
            location_is_monitor: false,
            is_streaming: false,
            origins: Vec::new(),
            shared_headers: Vec::new(),
            observer: None,
            cancel_timeout: None,
        }
    }
}
