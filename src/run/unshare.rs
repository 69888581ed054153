//! Copies what a request shares with its connection.
//!
//! A server's parser returns slices of its read buffer. A few hundred bytes can keep several
//! kilobytes alive, which matters for a request that waits for long among many others.

use bytes::Bytes;
use http::{HeaderValue, Uri, request::Parts};

/// The largest body that is copied, in bytes. A larger one outweighs the read buffer it is part of.
const MAX_COPIED_BYTES: usize = 64 * 1024;

/// Copies bytes if they may be a slice of a connection's read buffer.
pub(super) fn unshare_bytes(bytes: &mut Bytes) {
    if bytes.len() <= MAX_COPIED_BYTES {
        *bytes = Bytes::copy_from_slice(bytes);
    }
}

/// Copies a head's URI and the values of its fields into one piece.
pub(super) fn unshare_head(head: &mut Parts) {
    let mut copy = head.uri.to_string().into_bytes();
    let uri_length = copy.len();
    for value in head.headers.values() {
        copy.extend_from_slice(value.as_bytes());
    }
    copy.shrink_to_fit();
    let mut copy = Bytes::from(copy);
    // The copies parse as the originals did; if one does not, the original stays.
    if let Ok(uri) = Uri::from_maybe_shared(copy.split_to(uri_length)) {
        head.uri = uri;
    }
    for value in head.headers.values_mut() {
        if let Ok(mut copied) = HeaderValue::from_maybe_shared(copy.split_to(value.len())) {
            copied.set_sensitive(value.is_sensitive());
            *value = copied;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn unshared_head_is_equal_and_shares_nothing() {
        for uri in ["/reports?month=11", "http://example.com/reports", "*"] {
            let buffer = Bytes::from(format!("{uri}secretpublic").into_bytes());
            let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).expect("plain");
            let at = uri.len();
            let (mut head, ()) = Request::new(()).into_parts();
            head.uri = Uri::from_maybe_shared(buffer.slice(..at)).expect("a URI");
            let mut secret = value(at..at + 6);
            secret.set_sensitive(true);
            head.headers.append("x-key", secret);
            head.headers.append("x-key", value(at + 6..at + 12));
            unshare_head(&mut head);
            assert!(buffer.is_unique());
            assert_eq!(head.uri, uri);
            let values: Vec<_> = head.headers.get_all("x-key").iter().collect();
            assert_eq!(values, ["secret", "public"]);
            let are_sensitive = [values[0].is_sensitive(), values[1].is_sensitive()];
            assert_eq!(are_sensitive, [true, false]);
        }
    }
}
