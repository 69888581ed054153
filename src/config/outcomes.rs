//! The outcomes that an idempotency key keeps.

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The outcomes of a job that its idempotency key keeps: a repeat of the request joins the job.
///
/// Any other outcome frees the key, so that a repeat calls the inner service again. A job that
/// ended without a response counts by the status that its result has, such as 504 for a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcomes {
    /// All outcomes.
    #[default]
    All,
    /// All except 5xx and 429 (Too Many Requests), which may pass.
    Final,
}

impl Outcomes {
    /// Returns `true` if a key keeps an outcome with this status.
    pub fn keeps(self, status: StatusCode) -> bool {
        let is_temporary = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        self == Self::All || !is_temporary
    }
}
