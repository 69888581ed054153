//! Adds ids to the events of a stream, and finds events by their ids.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::task::yield_now;

use crate::{
    limit::Pace,
    protocol::{BoxError, EventScanner},
    store::ResultBody,
};

/// The number of frames that a scan reads before it yields.
const FRAMES_PER_TURN: usize = 16;

/// The id that `?ids` gives an event: the run, and the offset after the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddedId {
    pub(super) run: u32,
    pub(super) offset: u64,
}

impl AddedId {
    pub(super) fn parse(id: &[u8]) -> Option<Self> {
        let (run, offset) = str::from_utf8(id).ok()?.split_once('-')?;
        let id = Self {
            run: run.parse().ok()?,
            offset: offset.parse().ok()?,
        };
        // Compared as text: "01-7" is the id of another service.
        (id.text().as_bytes() == [run, "-", offset].concat().as_bytes()).then_some(id)
    }

    fn text(self) -> String {
        format!("{}-{}", self.run, self.offset)
    }
}

/// A body of events, with an id added to each that has data and no id.
struct IdentifiedEvents {
    body: ResultBody,
    scanner: EventScanner,
    run: u32,
    /// The offset of the body's first byte.
    start: u64,
    /// The offset of the next byte, without added ids, and the pace of the call.
    pace: Option<(u64, Arc<Pace>)>,
}

/// Adds ids to the events of a body that begins at byte `start` of the output of `run`. `pace` is
/// that of the call that produces the body.
pub(super) fn identified(
    body: ResultBody,
    run: u32,
    start: u64,
    pace: Option<Arc<Pace>>,
) -> ResultBody {
    ResultBody::boxed(IdentifiedEvents {
        body,
        scanner: EventScanner::default(),
        run,
        start,
        pace: pace.map(|pace| (start, pace)),
    })
}

impl IdentifiedEvents {
    fn identify(&mut self, data: &[u8]) -> Bytes {
        let mut identified = BytesMut::with_capacity(data.len() + 64);
        let mut rest = data;
        while let Some(end) = self.scanner.next(rest) {
            let (event, after) = rest.split_at(end.length);
            if end.has_data && end.id.is_none() {
                let (run, offset) = (self.run, self.start + end.offset);
                let (lines, empty_line) = event.split_at(end.before_end);
                identified.extend_from_slice(lines);
                let id = AddedId { run, offset }.text();
                identified.extend_from_slice(format!("id: {id}\n").as_bytes());
                identified.extend_from_slice(empty_line);
            } else {
                identified.extend_from_slice(event);
            }
            rest = after;
        }
        identified.extend_from_slice(rest);
        identified.freeze()
    }
}

impl Body for IdentifiedEvents {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            if let (Some(data), Some((offset, pace))) = (frame.data_ref(), &mut self.pace) {
                *offset += data.len() as u64;
                pace.advance(*offset);
            }
            Ok(frame.map_data(|data| self.identify(&data)))
        }))
    }
}

/// Returns the offset after the event with this id, in the first `available` bytes of a body.
/// Returns `None` unless exactly one event has the id.
pub(super) async fn find_event(
    mut body: ResultBody,
    available: u64,
    id: &[u8],
) -> Result<Option<u64>, BoxError> {
    let mut scanner = EventScanner::default();
    let (mut found, mut left, mut frames) = (None, available, 0);
    while left > 0 {
        let Some(data) = next_data(&mut body, &mut frames).await? else {
            break;
        };
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        left -= length as u64;
        let mut rest = &data[..length];
        while let Some(end) = scanner.next(rest) {
            if end.id.as_deref() == Some(id) {
                if found.is_some() {
                    return Ok(None);
                }
                found = Some(end.offset);
            }
            rest = &rest[end.length..];
        }
    }
    Ok(found)
}

/// Returns `true` if a body of an ended job has an event that a client dispatches.
pub(super) async fn has_event(mut body: ResultBody) -> bool {
    let mut scanner = EventScanner::default();
    let mut frames = 0;
    // A response that broke off has the events before its break.
    while let Ok(Some(data)) = next_data(&mut body, &mut frames).await {
        let mut rest = &data[..];
        while let Some(end) = scanner.next(rest) {
            if end.has_data {
                return true;
            }
            rest = &rest[end.length..];
        }
    }
    false
}

async fn next_data(body: &mut ResultBody, frames: &mut usize) -> Result<Option<Bytes>, BoxError> {
    *frames += 1;
    if frames.is_multiple_of(FRAMES_PER_TURN) {
        yield_now().await;
    }
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    match frame.transpose()? {
        // Trailers come last.
        Some(frame) => Ok(frame.into_data().ok()),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const EVENTS: &str =
        "\u{feff}data: one\n\nid: 7\ndata: two\n\n: comment\n\ndata: three\r\n\r\n";

    async fn identify(from: usize) -> String {
        let body = ResultBody::from(Bytes::from(&EVENTS[from..]));
        let body = identified(body, 2, from as u64, None).collect().await;
        let bytes = body.expect("no error").to_bytes();
        String::from_utf8(bytes.into()).expect("a text")
    }

    #[tokio::test]
    async fn events_without_an_id_get_one() {
        let first = "\u{feff}data: one\nid: 2-14\n\n";
        let rest = "id: 7\ndata: two\n\n: comment\n\ndata: three\r\nid: 2-56\n\r\n";
        assert_eq!(identify(0).await, [first, rest].concat());
        assert_eq!(identify(14).await, rest);
        assert_eq!(&EVENTS.as_bytes()[56..], b"\n");
    }

    #[tokio::test]
    async fn event_is_found_by_its_only_id() {
        let twice = [EVENTS, EVENTS].concat();
        for (text, available, id, found) in [
            (EVENTS, EVENTS.len(), "7", Some(31)),
            (EVENTS, 30, "7", None),
            (EVENTS, EVENTS.len(), "8", None),
            (&twice, twice.len(), "7", None),
        ] {
            let body = ResultBody::from(Bytes::from(text.to_owned()));
            let at = find_event(body, available as u64, id.as_bytes()).await;
            assert_eq!(at.expect("no error"), found, "{available} {id}");
        }
    }

    #[test]
    fn added_id_is_compared_as_text() {
        let id = AddedId { run: 1, offset: 20 };
        assert_eq!(AddedId::parse(b"1-20"), Some(id));
        for other in ["01-20", "1-020", "1-+20", "1", "a-b", "1-20-3"] {
            assert_eq!(AddedId::parse(other.as_bytes()), None, "{other}");
        }
    }
}
