//! The tracing span of a job.

use std::{fmt, sync::Arc};

use http::{Method, request::Parts};
use tracing::{Span, field::Empty, info_span};

use crate::job::JobId;

type MakeSpanFn = dyn Fn(&Parts, JobId, &str) -> Span + Send + Sync;

/// Makes the spans of jobs.
#[derive(Clone, Default)]
pub(crate) struct JobSpans {
    make: Option<Arc<MakeSpanFn>>,
}

impl JobSpans {
    /// Makes spans by a closure over the request's head, the job's id and the name of its kind.
    pub(crate) fn new<F>(make: F) -> Self
    where
        F: Fn(&Parts, JobId, &str) -> Span + Send + Sync + 'static,
    {
        Self {
            make: Some(Arc::new(make)),
        }
    }

    /// Returns `true` if a span needs the head of its request.
    pub(crate) fn needs_head(&self) -> bool {
        self.make.is_some()
    }

    /// Creates the span of a job.
    pub(crate) fn make(
        &self,
        head: Option<&Parts>,
        id: JobId,
        method: &Method,
        kind: &str,
    ) -> Span {
        let Some(make) = &self.make else {
            return default_span(id, method, kind);
        };
        debug_assert!(head.is_some(), "a closure needs the head");
        head.map_or_else(Span::none, |head| make(head, id, kind))
    }
}

/// Creates a span that follows from the request's span and outlives it.
fn default_span(id: JobId, method: &Method, kind: &str) -> Span {
    let span = info_span!(parent: None, "job", %id, %method, kind, end = Empty);
    if !span.is_disabled() {
        span.follows_from(Span::current());
    }
    span
}

impl fmt::Debug for JobSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.make.is_some() {
            "JobSpans::Custom"
        } else {
            "JobSpans::Default"
        })
    }
}
