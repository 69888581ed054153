//! Bodies in memory: one that has been read, and one that is being read.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::{budget::Charge, fields::MAX_FIELD_VALUES};

/// The maximum number of bytes to allocate ahead for a declared length.
const MAX_PREALLOCATED_BYTES: usize = 256 * 1024;

/// A body that has been read to its end, and its charge.
#[derive(Debug)]
pub struct BufferedBody {
    /// The data, in one piece.
    pub bytes: Bytes,
    /// The trailers, if the body had any.
    pub trailers: Option<Box<HeaderMap>>,
    /// What the body takes of the budget; `None` for an empty body.
    pub charge: Option<Charge>,
}

/// Collects the frames of a body.
///
/// The only frame of a body is kept as it is. Several are copied into one piece, which releases the
/// read buffers that they are slices of.
#[derive(Debug)]
pub struct BodyBuffer {
    data: BufferedData,
    trailers: Option<Box<HeaderMap>>,
    charge: Option<Charge>,
}

#[derive(Debug)]
enum BufferedData {
    One(Bytes),
    Many(BytesMut),
}

impl Default for BodyBuffer {
    fn default() -> Self {
        Self {
            data: BufferedData::One(Bytes::new()),
            trailers: None,
            charge: None,
        }
    }
}

impl BodyBuffer {
    /// Creates an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of bytes collected.
    pub fn len(&self) -> usize {
        match &self.data {
            BufferedData::One(bytes) => bytes.len(),
            BufferedData::Many(bytes) => bytes.len(),
        }
    }

    /// Returns `true` if no data has been collected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends data. `upcoming` is the number of bytes that the body declares to follow, if it
    /// does.
    pub fn push(&mut self, data: Bytes, upcoming: Option<u64>) {
        match &mut self.data {
            BufferedData::One(first) if first.is_empty() => *first = data,
            BufferedData::One(first) => {
                let upcoming = usize::try_from(upcoming.unwrap_or(0)).unwrap_or(usize::MAX);
                let ahead = upcoming.min(MAX_PREALLOCATED_BYTES);
                let mut all = BytesMut::with_capacity(first.len() + data.remaining() + ahead);
                all.extend_from_slice(first);
                all.put(data);
                self.data = BufferedData::Many(all);
            }
            BufferedData::Many(all) => all.put(data),
        }
    }

    /// Adds trailers.
    pub fn push_trailers(&mut self, trailers: HeaderMap) {
        match &mut self.trailers {
            Some(all) => all.extend(trailers),
            none => *none = Some(Box::new(trailers)),
        }
    }

    /// Returns `true` if the trailers so far and these fit into one map.
    pub(crate) fn has_room_for(&self, trailers: &HeaderMap) -> bool {
        let all = self.trailers.as_deref();
        all.is_none_or(|all| all.len() + trailers.len() <= MAX_FIELD_VALUES)
    }

    /// Holds `charge` for as long as the body is kept.
    pub fn hold(&mut self, charge: Charge) {
        match &mut self.charge {
            Some(all) => all.merge(charge),
            none => *none = Some(charge),
        }
    }

    /// Takes the body that has been collected so far, and leaves the buffer empty.
    pub fn take(&mut self) -> BufferedBody {
        let buffer = std::mem::take(self);
        BufferedBody {
            bytes: match buffer.data {
                BufferedData::One(bytes) => bytes,
                BufferedData::Many(bytes) => bytes.freeze(),
            },
            trailers: buffer.trailers,
            charge: buffer.charge,
        }
    }
}
