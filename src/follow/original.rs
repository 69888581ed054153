//! The head of the original request, kept until its response arrives.

use std::sync::Arc;

use http::{Method, Request, StatusCode};

use super::options::FollowOptions;

/// The original request without its body, and the layer's settings.
pub(super) struct OriginalRequest {
    pub(super) options: Arc<FollowOptions>,
    pub(super) request: Request<()>,
}

impl OriginalRequest {
    pub(super) fn new<B>(request: &Request<B>, options: &Arc<FollowOptions>) -> Self {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        *head.extensions_mut() = request.extensions().clone();
        Self {
            options: options.clone(),
            request: head,
        }
    }

    /// Returns `true` if a response with this status is followed.
    pub(super) fn is_followed(&self, status: StatusCode) -> bool {
        // Following needs content, and a response to HEAD has none.
        status == StatusCode::ACCEPTED && self.request.method() != Method::HEAD
    }
}
