use std::sync::Arc;

use http::{Method, Request, StatusCode};

use super::options::Options;

/// What is kept of a request until its response shows whether it is to be followed.
pub(super) struct Start {
    pub(super) options: Arc<Options>,
    pub(super) original: Request<()>,
}

impl Start {
    pub(super) fn new<B>(request: &Request<B>, options: &Arc<Options>) -> Self {
        let mut original = Request::new(());
        *original.method_mut() = request.method().clone();
        *original.uri_mut() = request.uri().clone();
        *original.version_mut() = request.version();
        *original.headers_mut() = request.headers().clone();
        *original.extensions_mut() = request.extensions().clone();
        Self {
            options: options.clone(),
            original,
        }
    }

    /// Whether a response of this status is worth a look.
    pub(super) fn concerns(&self, status: StatusCode) -> bool {
        // A HEAD wants no content, and there is no following without.
        status == StatusCode::ACCEPTED && self.original.method() != Method::HEAD
    }
}
