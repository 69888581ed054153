//! Copies what a request shares with its connection.
//!
//! A server's parser returns slices of its read buffer. A few hundred bytes can keep several
//! kilobytes alive, which matters for a request that waits for long among many others.

use bytes::Bytes;
use http::{Uri, request::Parts};

use crate::limit::compact_fields;

/// Copies a head's URI and the values of its fields.
pub(super) fn unshare_head(head: &mut Parts) {
    // The copy parses as the original did; if it does not, the original stays.
    if let Ok(uri) = Uri::from_maybe_shared(Bytes::from(head.uri.to_string())) {
        head.uri = uri;
    }
    compact_fields(&mut head.headers);
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

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
