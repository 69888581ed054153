//! A response body that can be buffered and still be returned complete.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::protocol::{PollAllowance, poll_bytes, prefixed_size_hint};

/// The response body of [`FollowAccepted`](super::FollowAccepted).
///
/// It yields the frames, trailers and errors of the client's own body.
#[pin_project]
pub struct FollowBody<R: Body> {
    /// The frames that the layer has read.
    buffered: VecDeque<Frame<Bytes>>,
    /// The error that ended the reading.
    error: Option<R::Error>,
    #[pin]
    rest: Rest<R>,
}

#[pin_project(project = RestProj)]
enum Rest<R> {
    /// The layer has not read it.
    Inline(#[pin] R),
    /// The layer has read from it. The box lets this type move between reads.
    Boxed(Pin<Box<R>>),
    Ended,
}

pub(super) type FollowResponse<R> = Response<FollowBody<R>>;

/// The result of buffering a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Buffered {
    Complete(Bytes),
    TooLarge,
    Failed,
}

impl<R: Body> FollowBody<R> {
    pub(super) fn new(body: R) -> Self {
        Self {
            buffered: VecDeque::new(),
            error: None,
            rest: Rest::Inline(body),
        }
    }

    /// Reads the body to its end, or until more than `limit` bytes are buffered.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: frames that were read stay buffered.
    pub(super) async fn buffer(&mut self, limit: usize) -> Buffered {
        if let Rest::Inline(body) = std::mem::replace(&mut self.rest, Rest::Ended) {
            self.rest = Rest::Boxed(Box::pin(body));
        }
        poll_fn(|cx| self.poll_buffered(limit, cx)).await
    }

    fn poll_buffered(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<Buffered> {
        let mut allowance = PollAllowance::new();
        let mut length: usize = self.buffered_data().map(Bytes::len).sum();
        while let Rest::Boxed(body) = &mut self.rest {
            if length > limit {
                return Poll::Ready(Buffered::TooLarge);
            }
            ready!(allowance.poll_next(body, cx));
            match ready!(poll_bytes(body.as_mut(), cx)) {
                Some(Ok(frame)) => {
                    let read = frame.data_ref().map_or(0, Bytes::len);
                    allowance.count(read);
                    length += read;
                    self.buffered.push_back(frame);
                }
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.rest = Rest::Ended;
                    return Poll::Ready(Buffered::Failed);
                }
                None => self.rest = Rest::Ended,
            }
        }
        let mut data = self.buffered_data();
        let whole = match (data.next(), data.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            _ => {
                let mut whole = BytesMut::new();
                for data in self.buffered_data() {
                    whole.extend_from_slice(data);
                }
                whole.freeze()
            }
        };
        Poll::Ready(Buffered::Complete(whole))
    }

    /// Returns the data of the buffered frames.
    fn buffered_data(&self) -> impl Iterator<Item = &Bytes> {
        self.buffered.iter().filter_map(Frame::data_ref)
    }
}

impl<R: Body> Body for FollowBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut this = self.project();
        if let Some(frame) = this.buffered.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(match this.rest.as_mut().project() {
            RestProj::Inline(body) => poll_bytes(body, cx),
            RestProj::Boxed(body) => poll_bytes(body.as_mut(), cx),
            RestProj::Ended => Poll::Ready(None),
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.buffered.is_empty()
            && self.error.is_none()
            && match &self.rest {
                Rest::Inline(body) => body.is_end_stream(),
                Rest::Boxed(body) => body.is_end_stream(),
                Rest::Ended => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.rest {
            Rest::Inline(body) => return body.size_hint(),
            Rest::Boxed(body) => body.size_hint(),
            Rest::Ended if self.error.is_some() => SizeHint::default(),
            Rest::Ended => SizeHint::with_exact(0),
        };
        let read: u64 = self.buffered_data().map(|data| data.len() as u64).sum();
        prefixed_size_hint(hint, read)
    }
}

impl<R: Body> fmt::Debug for FollowBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowBody")
            .field("buffered", &self.buffered.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::BoxError;
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};

    type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

    fn body(frames: Frames) -> FollowBody<impl Body<Data = Bytes, Error = BoxError>> {
        let frames = futures_util::stream::iter(frames);
        FollowBody::new(StreamBody::new(frames))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn buffered_body_is_returned_complete() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", 7.into());
        let frames = vec![
            data("one "),
            data("two"),
            Ok(Frame::trailers(trailers.clone())),
        ];
        let mut body = body(frames);
        let whole = Bytes::from_static(b"one two");
        assert_eq!(body.buffer(7).await, Buffered::Complete(whole.clone()));
        assert_eq!(body.size_hint().exact(), Some(7));
        assert!(!body.is_end_stream());
        let collected = body.collect().await.expect("a whole body");
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), whole);
    }

    #[tokio::test]
    async fn too_large_body_is_returned_complete() {
        let mut body = body(vec![data("one "), data("two "), data("three")]);
        assert_eq!(body.buffer(6).await, Buffered::TooLarge);
        let collected = body.collect().await.expect("a whole body");
        assert_eq!(collected.to_bytes(), Bytes::from_static(b"one two three"));
    }

    #[tokio::test]
    async fn error_is_returned_after_buffered_frames() {
        let mut body = body(vec![data("one"), Err("cut off".into())]);
        assert_eq!(body.buffer(100).await, Buffered::Failed);
        assert!(!body.is_end_stream());
        let first = body.frame().await.expect("a frame").expect("data");
        assert_eq!(first.data_ref().map(Bytes::as_ref), Some(&b"one"[..]));
        let error = body.frame().await.expect("a frame").expect_err("an error");
        assert_eq!(error.to_string(), "cut off");
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }
}
