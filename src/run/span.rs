//! The tracing span of a job.

use http::Method;
use tracing::{Span, field::Empty, info_span};

use crate::job::JobId;

/// Creates the span of a job. It follows from the request's span and outlives it.
pub(crate) fn job_span(id: JobId, method: &Method) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, end = Empty);
    if !span.is_disabled() {
        span.follows_from(Span::current());
    }
    span
}
