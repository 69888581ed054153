//! Bytes that share no larger buffer.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

/// The maximum size of bytes that are copied without a look at their buffer.
pub(crate) const MAX_COPIED_BYTES: usize = 64 * 1024;

/// Returns bytes whose buffer is hardly larger than they are.
///
/// A frame of a body may be a slice of a larger buffer, which it would keep in memory. Bytes that
/// have a buffer of their own are not copied if they are larger than 64 KiB.
pub fn compact(bytes: Bytes) -> Bytes {
    if bytes.len() <= MAX_COPIED_BYTES {
        return Bytes::copy_from_slice(&bytes);
    }
    // This copies bytes that are shared, and takes the whole buffer of others.
    let buffer = Vec::from(bytes);
    if buffer.capacity() > buffer.len() + buffer.len() / 8 {
        // Not shrunk in place, which would leave a hole that is too small for the next buffer.
        return Bytes::copy_from_slice(&buffer);
    }
    buffer.into()
}

/// Copies the values of fields into one buffer that nothing else shares.
///
/// A parser's values are slices of its read buffer, which they would keep in memory.
pub fn compact_fields(fields: &mut HeaderMap) {
    let mut copy = Vec::with_capacity(fields.values().map(HeaderValue::len).sum());
    for value in fields.values() {
        copy.extend_from_slice(value.as_bytes());
    }
    let mut copy = Bytes::from(copy);
    for value in fields.values_mut() {
        // The copy of a valid value is valid; otherwise the original stays.
        if let Ok(mut copied) = HeaderValue::from_maybe_shared(copy.split_to(value.len())) {
            copied.set_sensitive(value.is_sensitive());
            *value = copied;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bytes_of_their_own_are_not_copied() {
        let bytes = Bytes::from(vec![7; MAX_COPIED_BYTES + 1]);
        let at = bytes.as_ptr();
        let same = compact(bytes);
        assert_eq!((same.as_ptr(), same.len()), (at, MAX_COPIED_BYTES + 1));
    }

    #[test]
    fn slice_releases_its_buffer() {
        for length in [10, MAX_COPIED_BYTES + 10] {
            let buffer = Bytes::from(vec![7; 1 << 20]);
            let slice = compact(buffer.slice(5..5 + length));
            assert!(buffer.is_unique());
            assert_eq!(slice, vec![7; length]);
        }
        let buffer = Bytes::from(vec![7; 1 << 20]);
        let slice = compact(buffer.slice(5..100_005));
        drop(buffer);
        assert_eq!(slice.try_into_mut().expect("unique").capacity(), 100_000);
    }

    #[test]
    fn only_slice_of_a_large_buffer_is_copied() {
        let slice = Bytes::from(vec![7; 1 << 20]).slice(..100_000);
        let slice = compact(slice);
        assert_eq!(slice.try_into_mut().expect("unique").capacity(), 100_000);
    }
}
