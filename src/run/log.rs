//! Logs errors of the inner service, which clients never see.

use std::error::Error;

pub(super) fn log_error(message: &'static str, error: &(dyn Error + Send + Sync + 'static)) {
    tracing::error!(error = error as &dyn Error, "{message}");
}
