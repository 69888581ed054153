//! The response body of the following layer.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::{FollowError, peeked::PeekedBody, resumable::ResumableBody};

/// The response body of [`FollowAccepted`](super::FollowAccepted).
///
/// It yields the data and trailers of the client's own body. With
/// [streaming](super::FollowAcceptedLayer::streaming), it goes on with another body of the client
/// after a break, and yields each byte once.
///
/// # Errors
///
/// - [`FollowError::Service`] has the error of the client's own body.
/// - [`FollowError::Stopped`] is an error of a body that is resumed. The response is incomplete.
///   [`Stopped`](super::Stopped) has the reason.
///
/// # Cancel safety
///
/// A dropped body drops its request and sends no other one, except the cancel of
/// [`cancel_on_drop`](super::FollowAcceptedLayer::cancel_on_drop). No task outlives it.
#[pin_project]
pub struct FollowBody<R: Body> {
    #[pin]
    kind: FollowBodyKind<R>,
}

#[pin_project(project = FollowBodyKindProj)]
enum FollowBodyKind<R: Body> {
    Plain(#[pin] PeekedBody<R>),
    /// The box keeps this type small for the other responses.
    Resumable(Box<ResumableBody<R>>),
}

pub(super) type FollowResponse<R> = Response<FollowBody<R>>;

impl<R: Body> FollowBody<R> {
    pub(super) fn plain(body: PeekedBody<R>) -> Self {
        Self {
            kind: FollowBodyKind::Plain(body),
        }
    }

    pub(super) fn resumable(body: ResumableBody<R>) -> Self {
        Self {
            kind: FollowBodyKind::Resumable(Box::new(body)),
        }
    }
}

impl<R: Body> Body for FollowBody<R> {
    type Data = Bytes;
    type Error = FollowError<R::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project().kind.project() {
            FollowBodyKindProj::Plain(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(FollowError::Service))),
            FollowBodyKindProj::Resumable(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            FollowBodyKind::Plain(body) => body.is_end_stream(),
            FollowBodyKind::Resumable(body) => body.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            FollowBodyKind::Plain(body) => body.size_hint(),
            FollowBodyKind::Resumable(body) => body.size_hint(),
        }
    }
}

impl<R: Body> fmt::Debug for FollowBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FollowBodyKind::Plain(body) => f.debug_tuple("FollowBody").field(body).finish(),
            FollowBodyKind::Resumable(body) => f.debug_tuple("FollowBody").field(body).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn body_is_as_sendable_as_that_of_the_client() {
        fn check<T: Send + Sync + Unpin>() {}
        check::<FollowBody<Full<Bytes>>>();
    }
}
