//! The error type of tower's middleware.

use std::error::Error;

/// An error of any type, as in the crate `tower`.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
