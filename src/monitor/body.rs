//! The body of a response of the monitor.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};

use crate::{protocol::BoxError, store::ResultBody};

/// The body of a response of the monitor: a document, a stored result, or events.
pub struct MonitorBody {
    kind: MonitorBodyKind,
}

enum MonitorBodyKind {
    Result(ResultBody),
    /// Boxed, so that the other bodies stay small.
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl MonitorBody {
    pub(super) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self {
            kind: MonitorBodyKind::Events(Box::pin(events)),
        }
    }

    /// Returns the document or result, unless the body is of events.
    pub(super) fn as_result(&self) -> Option<&ResultBody> {
        match &self.kind {
            MonitorBodyKind::Result(body) => Some(body),
            MonitorBodyKind::Events(_) => None,
        }
    }
}

impl From<ResultBody> for MonitorBody {
    fn from(body: ResultBody) -> Self {
        Self {
            kind: MonitorBodyKind::Result(body),
        }
    }
}

impl From<Bytes> for MonitorBody {
    fn from(bytes: Bytes) -> Self {
        ResultBody::from(bytes).into()
    }
}

impl Body for MonitorBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            MonitorBodyKind::Result(body) => Pin::new(body).poll_frame(cx),
            MonitorBodyKind::Events(events) => events
                .as_mut()
                .poll_next(cx)
                .map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.as_result().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.as_result().map(Body::size_hint).unwrap_or_default()
    }
}

impl fmt::Debug for MonitorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            MonitorBodyKind::Result(body) => f.debug_tuple("MonitorBody").field(body).finish(),
            MonitorBodyKind::Events(_) => f.write_str("MonitorBody::Events"),
        }
    }
}
