//! The rule that decides whether a request may run again.

use http::Method;

/// Decides which requests run again if the process that ran them dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rerun {
    /// Runs requests again if their method is idempotent (RFC 9110 §9.2.2) or they have an
    /// `Idempotency-Key`. All others end as [`lost`](crate::ErrorCode::Lost).
    #[default]
    Idempotent,
    /// Runs all requests again. The inner service must tolerate repetition itself.
    Always,
    /// Runs no request again.
    Never,
}

impl Rerun {
    /// Returns `true` if a request with this method may run again.
    pub fn allows(self, method: &Method, has_key: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Idempotent => has_key || method.is_idempotent(),
        }
    }
}
