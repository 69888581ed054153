//! The body of the response that the client gets.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::{
    job::HandleGuard,
    monitor::MonitorBody,
    protocol::{BoxError, poll_bytes},
};

/// The body of the response that the client gets: the inner service's own, or one of this layer's.
#[pin_project]
pub struct ResponseBody<B> {
    #[pin]
    kind: ResponseBodyKind<B>,
}

#[pin_project(project = ResponseBodyKindProj)]
enum ResponseBodyKind<B> {
    /// The service's body. The work of the call ends with it.
    Inner(#[pin] B, Option<HandleGuard>),
    Layer(MonitorBody),
}

impl<B> ResponseBody<B> {
    #[inline(always)]
    pub(super) fn inner(body: B, guard: Option<HandleGuard>) -> Self {
        Self {
            kind: ResponseBodyKind::Inner(body, guard),
        }
    }

    pub(super) fn layer(body: impl Into<MonitorBody>) -> Self {
        Self {
            kind: ResponseBodyKind::Layer(body.into()),
        }
    }
}

/// Creates an empty body, as layers need that answer for a service, such as CORS for a preflight.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::layer(Bytes::new())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            ResponseBodyKindProj::Inner(body, _) => poll_bytes(body, cx).map_err(Into::into),
            ResponseBodyKindProj::Layer(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseBodyKind::Inner(body, _) => body.is_end_stream(),
            ResponseBodyKind::Layer(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseBodyKind::Inner(body, _) => body.size_hint(),
            ResponseBodyKind::Layer(body) => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ResponseBodyKind::Inner(..) => f.write_str("ResponseBody::Inner"),
            ResponseBodyKind::Layer(body) => f.debug_tuple("ResponseBody").field(body).finish(),
        }
    }
}
