//! The options of a layer, besides its policy.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};

use crate::{
    config::{Backpressure, Idempotency},
    run::JobSpans,
};

/// The options of a layer, besides its policy.
#[derive(Clone, Default)]
pub(super) struct LayerOptions {
    pub(super) idempotency: Idempotency,
    pub(super) admit: Option<Arc<AdmitFn>>,
    pub(super) kind: Option<Arc<NameFn>>,
    pub(super) title: Option<Arc<NameFn>>,
    pub(super) spans: JobSpans,
    pub(super) backpressure: Backpressure,
}

/// Refuses a request with a response, or admits it.
pub(super) type AdmitFn = dyn Fn(&Parts) -> Result<(), Response<Bytes>> + Send + Sync;

/// Returns the name of a request's kind, or the title of its job.
pub(super) type NameFn = dyn for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync;

impl fmt::Debug for LayerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerOptions")
            .field("idempotency", &self.idempotency)
            .field("admit", &self.admit.is_some())
            .field("kind", &self.kind.is_some())
            .field("title", &self.title.is_some())
            .field("spans", &self.spans)
            .field("backpressure", &self.backpressure)
            .finish()
    }
}
