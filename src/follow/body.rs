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

use crate::protocol::poll_bytes;

/// The body of a response that has been followed, or looked at on the way: the service's own.
#[pin_project]
pub struct FollowBody<R: Body> {
    /// What has been read to look at it.
    read: VecDeque<Frame<Bytes>>,
    /// How the reading ended, where it ended badly.
    broken: Option<R::Error>,
    #[pin]
    rest: Rest<R>,
}

#[pin_project(project = RestProj)]
enum Rest<R> {
    Untouched(#[pin] R),
    /// Reading has begun while it could still be moved.
    Begun(Pin<Box<R>>),
    Ended,
}

pub(super) type FollowResponse<R> = Response<FollowBody<R>>;

/// How far a body has been read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Whole(Bytes),
    TooLarge,
    Broken,
}

impl<R: Body> FollowBody<R> {
    pub(super) fn new(body: R) -> Self {
        Self {
            read: VecDeque::new(),
            broken: None,
            rest: Rest::Untouched(body),
        }
    }

    /// Reads the body to its end, or until it has more than `limit` bytes. Nothing that was read is
    /// lost, also where this is dropped midway.
    pub(super) async fn fill(&mut self, limit: usize) -> Filled {
        if let Rest::Untouched(body) = std::mem::replace(&mut self.rest, Rest::Ended) {
            self.rest = Rest::Begun(Box::pin(body));
        }
        while let Rest::Begun(body) = &mut self.rest {
            let len: usize = self
                .read
                .iter()
                .filter_map(Frame::data_ref)
                .map(Bytes::len)
                .sum();
            if len > limit {
                return Filled::TooLarge;
            }
            match poll_fn(|cx| poll_bytes(body.as_mut(), cx)).await {
                Some(Ok(frame)) => self.read.push_back(frame),
                Some(Err(error)) => {
                    self.broken = Some(error);
                    self.rest = Rest::Ended;
                    return Filled::Broken;
                }
                None => self.rest = Rest::Ended,
            }
        }
        let mut data = self.read.iter().filter_map(Frame::data_ref);
        let whole = match (data.next(), data.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            _ => {
                let mut whole = BytesMut::new();
                for data in self.read.iter().filter_map(Frame::data_ref) {
                    whole.extend_from_slice(data);
                }
                whole.freeze()
            }
        };
        Filled::Whole(whole)
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
        if let Some(frame) = this.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(match this.rest.as_mut().project() {
            RestProj::Untouched(body) => poll_bytes(body, cx),
            RestProj::Begun(body) => poll_bytes(body.as_mut(), cx),
            RestProj::Ended => Poll::Ready(None),
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && self.broken.is_none()
            && match &self.rest {
                Rest::Untouched(body) => body.is_end_stream(),
                Rest::Begun(body) => body.is_end_stream(),
                Rest::Ended => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.rest {
            Rest::Untouched(body) => return body.size_hint(),
            Rest::Begun(body) => body.size_hint(),
            Rest::Ended if self.broken.is_some() => SizeHint::default(),
            Rest::Ended => SizeHint::with_exact(0),
        };
        let read = self.read.iter().filter_map(Frame::data_ref);
        let read: u64 = read.map(|data| data.len() as u64).sum();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

impl<R: Body> fmt::Debug for FollowBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowBody")
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};
    use tower::BoxError;

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, BoxError>>;

    fn body(frames: Frames) -> FollowBody<impl Body<Data = Bytes, Error = BoxError>> {
        let frames = futures_util::stream::iter(frames);
        FollowBody::new(StreamBody::new(frames))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn what_was_looked_at_is_handed_out_again() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", 7.into());
        let frames = vec![
            data("one "),
            data("two"),
            Ok(Frame::trailers(trailers.clone())),
        ];
        let mut body = body(frames);
        let whole = Bytes::from_static(b"one two");
        assert_eq!(body.fill(7).await, Filled::Whole(whole.clone()));
        assert_eq!(body.size_hint().exact(), Some(7));
        assert!(!body.is_end_stream());
        let collected = body.collect().await.expect("a whole body");
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), whole);
    }

    #[tokio::test]
    async fn what_is_too_much_is_handed_out_whole() {
        let mut body = body(vec![data("one "), data("two "), data("three")]);
        assert_eq!(body.fill(6).await, Filled::TooLarge);
        let collected = body.collect().await.expect("a whole body");
        assert_eq!(collected.to_bytes(), Bytes::from_static(b"one two three"));
    }

    #[tokio::test]
    async fn what_broke_breaks_again() {
        let mut body = body(vec![data("one"), Err("cut off".into())]);
        assert_eq!(body.fill(100).await, Filled::Broken);
        assert!(!body.is_end_stream());
        let first = body.frame().await.expect("a frame").expect("data");
        assert_eq!(first.data_ref().map(Bytes::as_ref), Some(&b"one"[..]));
        let error = body.frame().await.expect("a frame").expect_err("an error");
        assert_eq!(error.to_string(), "cut off");
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }
}
