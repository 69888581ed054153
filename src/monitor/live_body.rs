//! The body of an output that may break off.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{limit::Pace, protocol::BoxError, store::ResultBody, telemetry::GaugeGuard};

/// The time between the last data and the error of a body that breaks off.
///
/// A server drops what it has not sent when a body fails. While the body is pending, it sends that.
const BREAK_DELAY: Duration = Duration::from_millis(100);

/// A body that gives a server the time to send its data before it breaks off.
struct LiveBody {
    body: ResultBody,
    /// Set while the error waits.
    breaking: Option<(BoxError, Pin<Box<Sleep>>)>,
    /// The offset of the next byte, and the pace of the call that produces it.
    pace: Option<(u64, Arc<Pace>)>,
    _gauge: GaugeGuard,
}

/// Delays the error of a body, and counts the body as a stream. `pace` is that of the call that
/// produces the body, with the offset of its first byte.
pub(crate) fn live(body: ResultBody, pace: Option<(u64, Arc<Pace>)>) -> ResultBody {
    if body.is_empty() && !body.has_trailers() {
        return body;
    }
    ResultBody::boxed(LiveBody {
        body,
        breaking: None,
        pace,
        _gauge: GaugeGuard::stream(),
    })
}

impl Body for LiveBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            if let Some((_, delay)) = &mut this.breaking {
                ready!(delay.as_mut().poll(cx));
                let error = this.breaking.take().map(|(error, _)| error);
                return Poll::Ready(error.map(Err));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Err(error)) => this.breaking = Some((error, Box::pin(sleep(BREAK_DELAY)))),
                frame => {
                    if let (Some(Ok(frame)), Some((offset, pace))) = (&frame, &mut this.pace) {
                        *offset += frame.data_ref().map_or(0, Bytes::len) as u64;
                        pace.advance(*offset);
                    }
                    return Poll::Ready(frame);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.breaking.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
