use std::{
    borrow::Borrow,
    cell::Cell,
    fmt,
    hash::{Hash, Hasher},
};

use http::Method;
use triomphe::ThinArc;

use super::history::History;

/// A kind of request: what is alike enough for the time that one took to say something of the next.
///
/// It is the method and a path in which what looks like a name of one thing is left out, `POST
/// /reports/{}`; or what [`AcceptedLayer::kind`](crate::AcceptedLayer::kind) makes of a request.
///
/// Its name, and where it was known when the name was given, its past: so that it is looked up once for each
/// request. Of a kind that is not known yet each request has a name of its own, so it is one allocation.
#[derive(Clone)]
pub struct Kind(ThinArc<Option<Box<History>>, u8>);

/// How many bytes of a path are looked at.
const MAX_PATH: usize = 119;

/// How many segments of a path are told apart: what comes deeper is one kind.
const MAX_SEGMENTS: usize = 8;

/// The longest segment that is taken for a word, in bytes.
const MAX_WORD: usize = 32;

/// The longest text that names a kind, in bytes.
const MAX_NAME: usize = 256;

impl Kind {
    /// The kind of this name; at most 256 bytes of it are kept.
    pub fn new(name: &str) -> Self {
        let mut end = name.len().min(MAX_NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self::named(&name[..end], None)
    }

    /// The same kind, of which something is to be known from now on.
    pub(super) fn with_history(&self) -> Self {
        Self::named(self.as_str(), Some(Box::default()))
    }

    fn named(name: &str, history: Option<Box<History>>) -> Self {
        Self(ThinArc::from_header_and_slice(history, name.as_bytes()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0.slice).unwrap_or_default()
    }

    /// What is known of it, where that was so when it got its name.
    pub(super) fn history(&self) -> Option<&History> {
        self.0.header.header.as_deref()
    }
}

// By the bytes of its name: to see that they are a text takes longer than to compare them.

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.0.slice == other.0.slice
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.slice.hash(state);
    }
}

/// The beginning of a request's path, kept in place until it is known whether anybody will ask for the
/// kind: a call that is answered inline is of none.
#[derive(Clone, Copy)]
pub(crate) struct PathStart {
    bytes: [u8; MAX_PATH],
    length: u8,
}

impl Default for PathStart {
    fn default() -> Self {
        let bytes = [0; MAX_PATH];
        Self { bytes, length: 0 }
    }
}

impl PathStart {
    fn cut(path: &str) -> &str {
        let mut end = path.len().min(MAX_PATH);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        &path[..end]
    }

    pub(crate) fn of(path: &str) -> Self {
        let path = Self::cut(path);
        let length = path.len();
        let mut start = Self::default();
        start.bytes[..length].copy_from_slice(&path.as_bytes()[..length]);
        start.length = length as u8;
        start
    }

    pub(crate) fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        str::from_utf8(bytes).unwrap_or_default()
    }
}

thread_local! {
    /// A name that was written before, taken out while it is written over.
    static SPARE: Cell<String> = const { Cell::new(String::new()) };
}

/// Makes something of the name of a request's kind where nobody says what it is.
pub(super) fn with_name<T>(method: &Method, path: &str, make: impl FnOnce(&str) -> T) -> T {
    let mut name = SPARE.take();
    name.clear();
    write_name(&mut name, method, path);
    let made = make(&name);
    SPARE.set(name);
    made
}

/// Its method and its path's words.
fn write_name(name: &mut String, method: &Method, path: &str) {
    // Standard methods are short; what else a client makes up is one.
    name.push_str(match method.as_str() {
        method if method.len() <= MAX_WORD => method,
        _ => "*",
    });
    name.push(' ');
    // As much as is kept of the path of a call that has begun.
    let path = PathStart::cut(path);
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    for segment in segments.by_ref().take(MAX_SEGMENTS) {
        name.push('/');
        name.push_str(match is_word(segment) {
            true => segment,
            false => "{}",
        });
    }
    if segments.next().is_some() {
        name.push_str("/*");
    }
}

/// Whether a segment is one of the application's words, as against the name of one thing of many:
/// ids of every make have digits in them, but `v2` is a word.
fn is_word(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes.len() <= MAX_WORD
        && (bytes.iter().all(|&byte| PLAIN[usize::from(byte)]) || is_version(bytes))
}

fn is_version(segment: &[u8]) -> bool {
    matches!(segment, [b'v' | b'V', digits @ ..] if digits.len() <= 2 && digits.iter().all(u8::is_ascii_digit))
}

/// What words consist of.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let is_plain = byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        plain[byte as usize] = is_plain;
        byte += 1;
    }
    plain
};

impl Borrow<[u8]> for Kind {
    fn borrow(&self) -> &[u8] {
        &self.0.slice
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_things_are_left_out_of_a_kind() {
        for (path, kind) in [
            ("/", "POST /"),
            ("/reports", "POST /reports"),
            ("/reports/", "POST /reports/"),
            ("/reports/17/render", "POST /reports/{}/render"),
            ("/v2/reports/2026-11", "POST /v2/reports/{}"),
            ("/users/a%40b.example/export", "POST /users/{}/export"),
            ("/x/tQ3nC2hDQ0eY6o1bF9qk5A", "POST /x/{}"),
            ("/a/b/c/d/e/f/g/h/i/j", "POST /a/b/c/d/e/f/g/h/*"),
            ("*", "POST /{}"),
        ] {
            assert_eq!(with_name(&Method::POST, path, str::to_owned), kind);
        }
    }

    proptest! {
        #[test]
        fn a_path_begins_as_it_is(path: String) {
            let start = PathStart::of(&path);
            prop_assert!(path.starts_with(start.as_str()));
            prop_assert!(start.as_str().len() == path.len() || start.as_str().len() > MAX_PATH - 4);
        }

        #[test]
        fn whatever_the_path_a_name_is_short(path: String, method in "[A-Z]{1,300}") {
            let method = Method::from_bytes(method.as_bytes()).expect("a token");
            prop_assert!(with_name(&method, &path, str::len) <= (MAX_SEGMENTS + 1) * (MAX_WORD + 1) + 2);
            prop_assert!(Kind::new(&path).as_str().len() <= MAX_NAME);
        }
    }
}
