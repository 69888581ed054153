//! Reads the body of a request before it is accepted.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Version, request::Parts};
use http_body::Body;

use crate::{
    limit::{BodyBuffer, BufferedBody, Charge, Purpose, fields_price},
    protocol::PollAllowance,
    store::Store,
};

/// Reads the body of a request to its end, within a limit and the budget.
pub(super) struct ReadBody {
    buffer: BodyBuffer,
    /// The length that the body declares, if it does.
    declared: Option<u64>,
    max_length: usize,
    stage: ReadStage,
}

enum ReadStage {
    Frames,
    /// A frame waits for room in the budget.
    Reserving(ReadFrame, Reservation),
    /// The body has been read to its end.
    Ended,
}

/// A frame of a body.
enum ReadFrame {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl ReadFrame {
    fn price(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => fields_price(trailers),
        }
    }

    fn push_to(self, buffer: &mut BodyBuffer, upcoming: Option<u64>) {
        match self {
            Self::Data(data) => buffer.push(data, upcoming),
            Self::Trailers(trailers) => buffer.push_trailers(trailers),
        }
    }
}

type Reservation = Pin<Box<dyn Future<Output = Option<Charge>> + Send>>;

/// Why a request's body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
    TooLarge,
    NoRoom,
    TimedOut,
    Broken,
}

impl ReadBody {
    pub(super) fn new(body: &impl Body, max_length: usize) -> Self {
        Self {
            buffer: BodyBuffer::new(),
            declared: body.size_hint().exact(),
            max_length,
            stage: ReadStage::Frames,
        }
    }

    /// Returns `true` if the body has been read to its end, so that its timeout is over.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.stage, ReadStage::Ended)
    }

    /// Takes all data that the body has returned, including a frame over a limit or without room.
    pub(super) fn take(&mut self) -> BufferedBody {
        self.buffer.take()
    }

    /// Gives up waiting for room. [`take`](Self::take) then includes the frame that waited.
    #[cold]
    pub(super) fn give_up(&mut self) {
        let stage = std::mem::replace(&mut self.stage, ReadStage::Frames);
        if let ReadStage::Reserving(frame, _) = stage {
            frame.push_to(&mut self.buffer, None);
        }
    }

    /// Completes when the body has been read to its end.
    pub(super) fn poll<B>(
        &mut self,
        head: &Parts,
        body: &mut B,
        store: &impl Store,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if self.is_ended() {
            return Poll::Ready(self.check_length());
        }
        ready!(self.poll_frames(body, store, cx))?;
        self.stage = ReadStage::Ended;
        if may_be_cut_off(head, body) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.check_length())
    }

    fn poll_frames<B>(
        &mut self,
        body: &mut B,
        store: &impl Store,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut allowance = PollAllowance::new();
        loop {
            if let ReadStage::Reserving(_, reservation) = &mut self.stage {
                let charge = ready!(reservation.as_mut().poll(cx));
                let stage = std::mem::replace(&mut self.stage, ReadStage::Frames);
                if let ReadStage::Reserving(frame, _) = stage {
                    self.push(frame, charge, body)?;
                }
            }
            ready!(allowance.poll_next(body, cx));
            let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
                return Poll::Ready(Ok(()));
            };
            let frame = match frame.map_err(|_| ReadError::Broken)?.into_data() {
                Ok(data) if self.buffer.len() + data.len() > self.max_length => {
                    self.buffer.push(data, None);
                    return Poll::Ready(Err(ReadError::TooLarge));
                }
                Ok(data) => {
                    allowance.count(data.len());
                    ReadFrame::Data(data)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) if self.buffer.has_room_for(&trailers) => {
                        ReadFrame::Trailers(trailers)
                    }
                    Ok(_) => return Poll::Ready(Err(ReadError::TooLarge)),
                    Err(_) => continue,
                },
            };
            let mut reservation = store.reserve(frame.price(), Purpose::Upload);
            match Pin::new(&mut reservation).poll(cx) {
                Poll::Ready(charge) => self.push(frame, charge, body)?,
                Poll::Pending => {
                    self.stage = ReadStage::Reserving(frame, Box::pin(reservation));
                    return Poll::Pending;
                }
            }
        }
    }

    fn push(
        &mut self,
        frame: ReadFrame,
        charge: Option<Charge>,
        body: &impl Body,
    ) -> Result<(), ReadError> {
        frame.push_to(&mut self.buffer, body.size_hint().upper());
        self.buffer.hold(charge.ok_or(ReadError::NoRoom)?);
        Ok(())
    }

    fn check_length(&self) -> Result<(), ReadError> {
        let length = self.buffer.len() as u64;
        let is_whole = self.declared.is_none_or(|declared| declared == length);
        if is_whole {
            Ok(())
        } else {
            Err(ReadError::Broken)
        }
    }
}

/// Returns `true` if the end of the body may be a reset of its stream.
///
/// hyper ends a body normally if its HTTP/2 stream is reset as `NO_ERROR`. Envoy resets a stream
/// like that if its client has disconnected. hyper looks for a reset while the call is pending, and
/// then drops the call. So the call is pending once more before the request is accepted.
fn may_be_cut_off<B: Body>(head: &Parts, body: &B) -> bool {
    head.version == Version::HTTP_2 && !body.is_end_stream()
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn frame_that_waits_for_room_is_taken_too() {
        let mut reading = ReadBody::new(&Full::<Bytes>::default(), 100);
        reading.buffer.push(Bytes::from_static(b"first, "), None);
        let reservation = Box::pin(std::future::pending());
        let frame = ReadFrame::Data(Bytes::from_static(b"waiting"));
        reading.stage = ReadStage::Reserving(frame, reservation);
        reading.give_up();
        assert_eq!(reading.take().bytes, "first, waiting");
    }
}
