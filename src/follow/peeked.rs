//! A response body that can be buffered and still be returned complete.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::protocol::{PollAllowance, poll_bytes, prefixed_size_hint};

/// A body of the client. The layer may have read a part of it.
///
/// It yields the data, trailers and errors of the client's own body.
#[pin_project]
pub(super) struct PeekedBody<R: Body> {
    /// The data that the layer has read before `last`. It is in one piece, since a small frame
    /// takes more memory than its data.
    data: BytesMut,
    /// The last data that the layer has read. It is not copied if it is the only data, or exceeds
    /// the limit.
    last: Bytes,
    /// The number of frames that the layer has read. Empty ones count, since they may be endless.
    frames: usize,
    /// The trailers that the layer has read. They end the body.
    trailers: Option<HeaderMap>,
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

/// A response of the client.
pub(super) type ClientResponse<R> = Response<PeekedBody<R>>;

/// The result of buffering a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Buffered {
    Complete(Bytes),
    TooLarge,
    Failed,
}

impl<R: Body> PeekedBody<R> {
    pub(super) fn new(body: R) -> Self {
        Self {
            data: BytesMut::new(),
            last: Bytes::new(),
            frames: 0,
            trailers: None,
            error: None,
            rest: Rest::Inline(body),
        }
    }

    /// Reads the body to its end, or until more than `limit` bytes, or frames, are buffered.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: what was read stays buffered.
    pub(super) async fn buffer(&mut self, limit: usize) -> Buffered {
        if let Rest::Inline(body) = mem::replace(&mut self.rest, Rest::Ended) {
            self.rest = Rest::Boxed(Box::pin(body));
        }
        poll_fn(|cx| self.poll_buffered(limit, cx)).await
    }

    fn poll_buffered(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<Buffered> {
        let mut allowance = PollAllowance::new();
        while let Rest::Boxed(body) = &mut self.rest {
            let bytes = self.data.len() + self.last.len();
            if bytes.max(self.frames) > limit {
                return Poll::Ready(Buffered::TooLarge);
            }
            ready!(allowance.poll_next(body, cx));
            match ready!(poll_bytes(body.as_mut(), cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        allowance.count(data.len());
                        self.frames += 1;
                        if !data.is_empty() {
                            self.data.extend_from_slice(&self.last);
                            self.last = data;
                        }
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.rest = Rest::Ended;
                    }
                },
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.rest = Rest::Ended;
                    return Poll::Ready(Buffered::Failed);
                }
                None => self.rest = Rest::Ended,
            }
        }
        if !self.data.is_empty() {
            self.data.extend_from_slice(&self.last);
            self.last = mem::take(&mut self.data).freeze();
        }
        Poll::Ready(Buffered::Complete(self.last.clone()))
    }

    fn buffered_len(&self) -> usize {
        self.data.len() + self.last.len()
    }
}

impl<R: Body> Body for PeekedBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut this = self.project();
        if !this.data.is_empty() {
            let data = mem::take(this.data).freeze();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !this.last.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(this.last)))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
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
        self.buffered_len() == 0
            && self.trailers.is_none()
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
        prefixed_size_hint(hint, self.buffered_len() as u64)
    }
}

impl<R: Body> fmt::Debug for PeekedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekedBody")
            .field("buffered", &self.buffered_len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::BoxError;
    use http_body_util::{BodyExt, StreamBody};

    type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

    fn body(frames: Frames) -> PeekedBody<impl Body<Data = Bytes, Error = BoxError>> {
        let frames = futures_util::stream::iter(frames);
        PeekedBody::new(StreamBody::new(frames))
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
    async fn document_of_tiny_frames_is_read_in_one_piece() {
        const FRAMES: usize = 300_000;
        let mut body = body((0..FRAMES).map(|_| data("x")).collect());
        let whole = Bytes::from("x".repeat(FRAMES));
        assert_eq!(body.buffer(FRAMES).await, Buffered::Complete(whole.clone()));
        let first = body.frame().await.expect("a frame").expect("data");
        assert_eq!(first.into_data().expect("data"), whole);
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn empty_frames_count() {
        let endless = futures_util::stream::repeat_with(|| data(""));
        let mut body = PeekedBody::new(StreamBody::new(endless));
        assert_eq!(body.buffer(100).await, Buffered::TooLarge);
        assert_eq!(body.frames, 101);
    }

    #[tokio::test]
    async fn large_frame_is_not_copied() {
        let large = Bytes::from(vec![7; 1000]);
        let mut body = body(vec![data("one"), Ok(Frame::data(large.clone()))]);
        assert_eq!(body.buffer(100).await, Buffered::TooLarge);
        let _ = body.frame().await;
        let second = body.frame().await.expect("a frame").expect("data");
        let second = second.into_data().expect("data");
        assert_eq!(second.as_ptr(), large.as_ptr());
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
