//! A stand-in for the crate's `limit`: no bytes are counted.

use bytes::Bytes;

#[derive(Debug)]
pub struct Charge;

impl Charge {
    pub fn merge(&mut self, _other: Self) {}

    pub fn split(&mut self, _bytes: usize) -> Self {
        Self
    }

    pub fn keep(&mut self) {}

    pub fn bytes(&self) -> usize {
        0
    }
}

// A charge has a destructor.
impl Drop for Charge {
    fn drop(&mut self) {}
}

pub fn fields_price(_fields: &http::HeaderMap) -> usize {
    0
}

pub fn compact(bytes: Bytes) -> Bytes {
    bytes
}
