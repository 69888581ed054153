//! Evaluates conditional and range requests (RFC 9110 §13 and §14).

use headers::{
    ETag, Header, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince,
    LastModified,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use http_range_header::{RangeUnsatisfiableError, parse_range_header};

use super::list::split;

/// The part of a stored representation that answers a request. Offsets are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The client expects another representation: 412.
    Failed,
    /// The client has this representation: 304.
    NotModified,
    /// The representation from `first` to `last`, both included: 206.
    Range { first: u64, last: u64, whole: u64 },
    /// The request's range is outside the representation: 416.
    Unsatisfiable { whole: u64 },
    /// All of the representation.
    Full,
}

/// The validators of a stored representation (RFC 9110 §8.8).
#[derive(Debug)]
pub(crate) struct Validators {
    etag: Option<ETag>,
    last_modified: Option<LastModified>,
}

impl Validators {
    /// Reads the validators from a response's head.
    ///
    /// Sets its `ETag` to `default`, if that is an entity tag, unless it has a valid one.
    pub(crate) fn from_headers(headers: &mut HeaderMap, default: Option<&str>) -> Self {
        let etag = typed(headers).or_else(|| {
            let etag: ETag = default?.parse().ok()?;
            headers.typed_insert(etag.clone());
            Some(etag)
        });
        Self {
            etag,
            last_modified: headers.typed_get(),
        }
    }

    /// Evaluates all conditions of a GET or HEAD and then `Range`, in the order of RFC 9110
    /// §13.2.2.
    ///
    /// `len` is the representation's size, or `None` if it cannot be sent in ranges.
    pub(crate) fn select(&self, request: &Parts, len: Option<u64>) -> Selection {
        if self.is_unexpected(&request.headers) {
            return Selection::Failed;
        }
        if self.is_current(&request.headers) {
            return Selection::NotModified;
        }
        match len {
            Some(len) if request.method == Method::GET => self.range(&request.headers, len),
            _ => Selection::Full,
        }
    }

    /// Returns `true` if the client expects another representation.
    fn is_unexpected(&self, request: &HeaderMap) -> bool {
        if request.contains_key(header::IF_MATCH) {
            // A malformed field matches no representation.
            let condition = typed::<IfMatch>(request);
            return !condition.is_some_and(|condition| {
                let etag = self.etag.as_ref();
                condition.is_any() || etag.is_some_and(|etag| condition.precondition_passes(etag))
            });
        }
        match (single::<IfUnmodifiedSince>(request), self.last_modified) {
            (Some(condition), Some(modified)) => !condition.precondition_passes(modified.into()),
            _ => false,
        }
    }

    /// Returns `true` if the client has this representation.
    fn is_current(&self, request: &HeaderMap) -> bool {
        if let Some(condition) = typed::<IfNoneMatch>(request) {
            return match &self.etag {
                Some(etag) => !condition.precondition_passes(etag),
                None => condition == IfNoneMatch::any(),
            };
        }
        match (single::<IfModifiedSince>(request), self.last_modified) {
            (Some(condition), Some(modified)) => !condition.is_modified(modified.into()),
            _ => false,
        }
    }

    /// Selects the request's range if there is exactly one. Several are answered with the whole
    /// representation, as RFC 9110 §14.2 allows.
    fn range(&self, request: &HeaderMap, whole: u64) -> Selection {
        // A malformed or repeated `If-Range` matches no representation.
        let is_same = match single::<IfRange>(request) {
            Some(condition) => {
                !condition.is_modified(self.etag.as_ref(), self.last_modified.as_ref())
            }
            None => !request.contains_key(header::IF_RANGE),
        };
        let range = only(request, &header::RANGE).filter(|_| is_same);
        let ranges = range.and_then(|range| parse_range_header(range.to_str().ok()?).ok());
        let Some(ranges) = ranges else {
            return Selection::Full;
        };
        // No `Content-Range` describes a part of an empty representation.
        if whole == 0 {
            return Selection::Full;
        }
        match ranges.validate(whole).as_deref() {
            Ok([range]) => Selection::Range {
                first: *range.start(),
                last: *range.end(),
                whole,
            },
            Err(RangeUnsatisfiableError::Unsatisfiable) => Selection::Unsatisfiable { whole },
            _ => Selection::Full,
        }
    }
}

/// Returns `true` if the request's `If-None-Match` names `etag`.
pub(crate) fn matches_if_none_match(request: &HeaderMap, etag: &str) -> bool {
    match (typed::<IfNoneMatch>(request), etag.parse::<ETag>()) {
        (Some(condition), Ok(etag)) => !condition.precondition_passes(&etag),
        _ => false,
    }
}

/// The entity tags that a condition lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntityTags<'a> {
    /// Any tag: `*`.
    Any,
    /// The opaque tags, without quotes. Only those that a strong tag can match.
    Listed(Vec<&'a [u8]>),
}

impl<'a> EntityTags<'a> {
    /// Reads the tags of `If-Match` (RFC 9110 §13.1.1). Weak tags match nothing.
    pub(crate) fn if_match(request: &'a HeaderMap) -> Option<Self> {
        Self::read(request, &header::IF_MATCH, |tag| tag)
    }

    /// Reads the tags of `If-None-Match` (RFC 9110 §13.1.2). Weak tags match like strong ones.
    pub(crate) fn if_none_match(request: &'a HeaderMap) -> Option<Self> {
        Self::read(request, &header::IF_NONE_MATCH, |tag| {
            tag.strip_prefix(b"W/").unwrap_or(tag)
        })
    }

    fn read(
        request: &'a HeaderMap,
        name: &HeaderName,
        to_strong: impl Fn(&[u8]) -> &[u8],
    ) -> Option<Self> {
        if !request.contains_key(name) {
            return None;
        }
        let values = request.get_all(name).iter();
        let mut listed = Vec::new();
        for tag in values.flat_map(|value| split(value.as_bytes(), b',')) {
            if tag == b"*" {
                return Some(Self::Any);
            }
            let quoted = to_strong(tag).strip_prefix(b"\"");
            listed.extend(quoted.and_then(|tag| tag.strip_suffix(b"\"")));
        }
        Some(Self::Listed(listed))
    }
}

/// Returns the value of a field that has exactly one. More make such a field invalid (RFC 9110
/// §5.3).
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Reads a field that has exactly one value.
fn single<H: Header>(headers: &HeaderMap) -> Option<H> {
    only(headers, H::name()).and_then(|_| typed(headers))
}

/// Reads a field of entity tags if each tag is valid (RFC 9110 §8.8.3).
///
/// The crate `headers` does not check the characters of a tag.
fn typed<H: Header>(headers: &HeaderMap) -> Option<H> {
    let is_tag = |byte: u8| (b'!'..=b'~').contains(&byte);
    let is_valid = headers.get_all(H::name()).iter().all(|value| {
        // Every second part is inside quotes. A date has no quotes.
        let mut parts = value.as_bytes().split(|&byte| byte == b'"').enumerate();
        // The parts are odd in number if each quote is closed, so no tag goes on in the next line.
        parts.clone().count() % 2 == 1
            && parts.all(|(at, part)| at % 2 == 0 || part.iter().copied().all(is_tag))
    });
    is_valid.then(|| headers.typed_get()).flatten()
}
