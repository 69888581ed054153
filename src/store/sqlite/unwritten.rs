//! The bytes of a body that have not been written to its file.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The size from which a frame is kept as it is. Smaller ones are copied together.
const LARGE_FRAME_BYTES: usize = 64 * 1024;

/// The bytes of a body that have not been written to its file.
///
/// A large frame is not copied: its bytes are in memory only once.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    frames: VecDeque<Bytes>,
    /// Small frames after these.
    tail: BytesMut,
    length: usize,
}

impl Unwritten {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, data: Bytes) {
        self.length += data.len();
        if data.len() < LARGE_FRAME_BYTES {
            self.tail.extend_from_slice(&data);
        } else {
            self.seal_tail();
            self.frames.push_back(data);
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.frames.push_back(tail);
        }
    }

    /// Takes the first bytes, at most `max`.
    pub(super) fn take(&mut self, max: usize) -> Vec<Bytes> {
        self.seal_tail();
        let mut taken = Vec::new();
        let mut left = max;
        while let Some(first) = self.frames.front_mut() {
            if first.len() > left {
                if left > 0 {
                    taken.push(first.split_to(left));
                }
                left = 0;
                break;
            }
            left -= first.len();
            taken.extend(self.frames.pop_front());
        }
        self.length -= max - left;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order() {
        let mut unwritten = Unwritten::default();
        let whole: Vec<u8> = (0..400_000_u32).map(|index| (index % 251) as u8).collect();
        let mut rest = Bytes::from(whole.clone());
        for length in [10, 70_000, 3, 3, 200_000, 0, 64 * 1024] {
            unwritten.push(rest.split_to(length));
        }
        unwritten.push(rest);
        assert_eq!(unwritten.len(), whole.len());
        let mut out = Vec::new();
        for max in [0, 1, 70_012, 50_000, 1_000_000] {
            let part = unwritten.take(max).concat();
            let expected = max.min(whole.len() - out.len());
            assert_eq!(part.len(), expected);
            out.extend(part);
        }
        assert_eq!((out, unwritten.len()), (whole, 0));
    }

    #[test]
    fn large_frame_is_not_copied() {
        let mut unwritten = Unwritten::default();
        let frame = Bytes::from(vec![7; 1 << 20]);
        unwritten.push(frame.clone());
        let part = unwritten.take(100_000);
        assert_eq!(part[0].as_ptr(), frame.as_ptr());
    }
}
