//! Reads any body as frames of `Bytes`, and describes the size of one in memory.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Polls the next frame and converts its data to `Bytes`, which is free if it is `Bytes` already.
pub(crate) fn poll_bytes<B: Body>(
    body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
    let frame = ready!(body.poll_frame(cx));
    Poll::Ready(frame.map(|frame| {
        frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
    }))
}

/// Returns the size hint of a body in memory.
///
/// HTTP/1 frames a body by its length if that is known, and then has no room for trailers.
pub(crate) fn buffered_size_hint(bytes: u64, has_trailers: bool) -> SizeHint {
    let mut hint = SizeHint::default();
    hint.set_lower(bytes);
    if !has_trailers {
        hint.set_upper(bytes);
    }
    hint
}
