//! The body of a stored response that is too large to be packed with its head.

use std::sync::Arc;

use bytes::Bytes;

use super::live::LiveResponse;

/// The body of a stored response.
#[derive(Debug)]
pub(super) enum StoredBody {
    /// The only frame of the body.
    One(Bytes),
    /// A body that was published while it was written.
    Live(Arc<LiveResponse>),
}

impl StoredBody {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(bytes) => bytes.len() as u64,
            Self::Live(response) => response.len(),
        }
    }

    /// Returns the bytes whose charge the body does not hold itself.
    pub(super) fn uncharged_bytes(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Live(_) => 0,
        }
    }

    /// Appends the whole body to `to`.
    pub(super) fn copy_to(&self, to: &mut Vec<u8>) {
        match self {
            Self::One(bytes) => to.extend_from_slice(bytes),
            Self::Live(response) => response.copy_to(to),
        }
    }
}
