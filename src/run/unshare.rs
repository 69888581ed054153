//! What a request shares with its connection, copied.
//!
//! A server's parser hands out slices of the buffer that it read into: a few hundred bytes keep some thousand for as
//! long as they are there, which does no harm to what is answered at once.

use bytes::Bytes;
use http::{HeaderValue, Uri, request::Parts};

/// Copies a head's address and the values of its fields into one piece.
pub(crate) fn detach_head(head: &mut Parts) {
    let mut copy = head.uri.to_string().into_bytes();
    let address = copy.len();
    for value in head.headers.values() {
        copy.extend_from_slice(value.as_bytes());
    }
    copy.shrink_to_fit();
    let mut copy = Bytes::from(copy);
    // What was let in before is let in again; else it stays as it is.
    if let Ok(uri) = Uri::from_maybe_shared(copy.split_to(address)) {
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
    fn a_head_is_the_same_and_shares_nothing_with_what_it_was_read_from() {
        for uri in ["/reports?month=11", "http://example.com/reports", "*"] {
            let buffer = Bytes::from(format!("{uri}secretpublic").into_bytes());
            let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).expect("plain");
            let at = uri.len();
            let (mut head, ()) = Request::new(()).into_parts();
            head.uri = Uri::from_maybe_shared(buffer.slice(..at)).expect("an address");
            let mut secret = value(at..at + 6);
            secret.set_sensitive(true);
            head.headers.append("x-key", secret);
            head.headers.append("x-key", value(at + 6..at + 12));
            detach_head(&mut head);
            assert!(buffer.is_unique());
            assert_eq!(head.uri, uri);
            let values: Vec<_> = head.headers.get_all("x-key").iter().collect();
            assert_eq!(values, ["secret", "public"]);
            let are_sensitive = [values[0].is_sensitive(), values[1].is_sensitive()];
            assert_eq!(are_sensitive, [true, false]);
        }
    }
}
