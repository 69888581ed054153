//! Conditional and range requests: `METHOD LENGTH`, the request's fields, then the response's.

use http::{HeaderMap, HeaderValue, Method, Request, header, request::Parts};

use super::input::{fields, line};
use crate::protocol::{Selection, Validators};

/// Checks that offsets are within the representation, and that well-formed requests mean what the
/// standard says.
pub fn conditions(input: &[u8]) {
    let (start, rest) = line(input);
    let (method, len) = match start.iter().position(|&byte| byte == b' ') {
        Some(at) => (&start[..at], &start[at + 1..]),
        None => (start, &b""[..]),
    };
    let method = Method::from_bytes(method).unwrap_or(Method::GET);
    let len: Option<u64> = str::from_utf8(len).ok().and_then(|len| len.parse().ok());
    let (request_fields, rest) = fields(rest);
    let (mut response_fields, _) = fields(rest);

    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method;
    head.headers = request_fields;
    let validators = Validators::from_headers(&mut response_fields, None);
    let selection = validators.select(&head, len);
    match selection {
        Selection::Range { first, last, whole } => {
            assert!(first <= last && last < whole);
            assert_eq!((Some(whole), &head.method), (len, &Method::GET));
        }
        Selection::Unsatisfiable { whole } => assert_eq!(Some(whole), len),
        _ => {}
    }

    let names: Vec<_> = head.headers.keys().collect();
    let ranges: Vec<_> = head.headers.get_all(header::RANGE).iter().collect();
    if let ([name], [range], Some(len)) = (&names[..], &ranges[..], len)
        && (*name, &head.method) == (&header::RANGE, &Method::GET)
        && let Some(expected) = expected(range, len)
    {
        assert_eq!(selection, expected, "{range:?} of {len}");
    }
    if let Some(etag) = strong_etag(&response_fields) {
        client_with_the_tag(&mut head, &validators, &etag, len);
    }
}

/// Returns the selection of a well-formed `bytes=first-last`, `bytes=first-` or `bytes=-last`.
fn expected(range: &HeaderValue, whole: u64) -> Option<Selection> {
    let (first, last) = range
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    // Longer numbers may be ignored.
    let number = |text: &str| {
        let is_short = (1..=18).contains(&text.len());
        (is_short && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u64>().expect("few digits"))
    };
    let (first, last) = match (first, last) {
        ("", suffix) => match number(suffix)? {
            0 => return None,
            suffix => (whole.saturating_sub(suffix), whole.checked_sub(1)),
        },
        (first, "") => (number(first)?, whole.checked_sub(1)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, whole.checked_sub(1).map(|end| end.min(last)))
        }
    };
    let Some(last) = last else {
        return Some(Selection::Full);
    };
    Some(if first < whole {
        Selection::Range { first, last, whole }
    } else {
        Selection::Unsatisfiable { whole }
    })
}

/// Checks a client that has the representation with this strong tag.
fn client_with_the_tag(
    head: &mut Parts,
    validators: &Validators,
    etag: &HeaderValue,
    len: Option<u64>,
) {
    head.method = Method::GET;
    head.headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag.clone())]);
    assert_eq!(validators.select(head, len), Selection::NotModified);

    let range = HeaderValue::from_static("bytes=0-0");
    head.headers = HeaderMap::from_iter([(header::RANGE, range), (header::IF_RANGE, etag.clone())]);
    if let Some(whole @ 1..) = len {
        let (first, last) = (0, 0);
        let selected = Selection::Range { first, last, whole };
        assert_eq!(validators.select(head, len), selected);
    }
    let mut other = etag.as_bytes().to_vec();
    other.insert(1, b'x');
    let other = HeaderValue::from_bytes(&other).expect("a tag");
    head.headers.insert(header::IF_RANGE, other);
    assert_eq!(validators.select(head, len), Selection::Full);
}

/// Returns the only `ETag` if it is a valid strong tag.
fn strong_etag(response: &HeaderMap) -> Option<HeaderValue> {
    let mut values = response.get_all(header::ETAG).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let tag = value.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let is_valid = tag
        .iter()
        .all(|byte| (b'!'..=b'~').contains(byte) && *byte != b'"');
    is_valid.then(|| value.clone())
}
