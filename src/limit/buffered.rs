use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

use super::budget::Charge;

/// How much is allocated on the strength of a declared length alone, in bytes.
const MAX_AHEAD: usize = 256 * 1024;

/// Reads a body to its end, within a limit and a budget.
///
/// A body of one frame is kept as it came; the frames of a longer one are copied together, which
/// also lets go of the read buffers that they are slices of.
#[derive(Debug)]
pub(crate) struct Collect {
    limit: usize,
    data: Data,
    trailers: Option<Box<HeaderMap>>,
    charge: Option<Charge>,
}

#[derive(Debug)]
enum Data {
    First(Bytes),
    Together(BytesMut),
}

/// A body that has been read, and what it takes of the budget.
#[derive(Debug)]
pub struct Collected {
    /// All data, in one piece.
    pub bytes: Bytes,
    /// The trailers, where there were any.
    pub trailers: Option<Box<HeaderMap>>,
    /// The bytes' place in the budget; none for no bytes.
    pub charge: Option<Charge>,
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum CollectError<E> {
    TooLarge,
    NoRoom,
    Body(E),
}

impl Collect {
    /// Reads up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            data: Data::First(Bytes::new()),
            trailers: None,
            charge: None,
        }
    }

    /// Reads on. After an error the data read so far is in [`finish`](Self::finish), the frame that
    /// was too much included.
    pub(crate) fn poll<B: Body>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
        reserve: impl Fn(usize) -> Option<Charge>,
    ) -> Poll<Result<(), CollectError<B::Error>>> {
        while let Some(frame) = ready!(body.as_mut().poll_frame(cx)) {
            let frame = frame.map_err(CollectError::Body)?;
            match frame.into_data() {
                Ok(data) => {
                    let len = data.remaining();
                    let room = self.len() + len <= self.limit;
                    let charge = room.then(|| reserve(len)).flatten();
                    self.push(data, body.size_hint().upper());
                    match charge {
                        Some(charge) => match &mut self.charge {
                            Some(all) => all.merge(charge),
                            none => *none = Some(charge),
                        },
                        None if room => return Poll::Ready(Err(CollectError::NoRoom)),
                        None => return Poll::Ready(Err(CollectError::TooLarge)),
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        match &mut self.trailers {
                            Some(all) => all.extend(trailers),
                            none => *none = Some(Box::new(trailers)),
                        }
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives out the data read so far.
    pub(crate) fn finish(&mut self) -> Collected {
        let data = std::mem::replace(&mut self.data, Data::First(Bytes::new()));
        Collected {
            bytes: match data {
                Data::First(bytes) => bytes,
                Data::Together(bytes) => bytes.freeze(),
            },
            trailers: self.trailers.take(),
            charge: self.charge.take(),
        }
    }

    /// How much has been read, in bytes.
    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::First(bytes) => bytes.len(),
            Data::Together(bytes) => bytes.len(),
        }
    }

    /// `upcoming` is how much more the body says it has, at the most.
    fn push(&mut self, data: impl Buf, upcoming: Option<u64>) {
        match &mut self.data {
            Data::First(first) if first.is_empty() => *first = whole(data),
            Data::First(first) => {
                let upcoming = usize::try_from(upcoming.unwrap_or(0)).unwrap_or(usize::MAX);
                let room = first.len() + data.remaining() + upcoming.min(MAX_AHEAD);
                let mut together = BytesMut::with_capacity(room);
                together.extend_from_slice(first);
                together.put(data);
                self.data = Data::Together(together);
            }
            Data::Together(together) => together.put(data),
        }
    }
}

/// All of it in one piece, which costs nothing where it is `Bytes` already.
fn whole(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}
