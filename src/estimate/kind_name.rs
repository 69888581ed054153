//! The default name of a request's kind, from its method and path.

use std::cell::Cell;

use http::Method;

/// Longer paths are truncated.
const MAX_PATH_BYTES: usize = 119;

/// Segments beyond these do not distinguish kinds.
const MAX_SEGMENTS: usize = 8;

/// Longer segments do not count as words.
const MAX_WORD_BYTES: usize = 32;

fn truncate(path: &str) -> &str {
    let mut end = path.len().min(MAX_PATH_BYTES);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

thread_local! {
    /// A buffer that is reused for names. It is taken out while it is in use.
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// Calls `make` with the default name for a method and a path.
pub(super) fn with_default_name<T>(method: &Method, path: &str, make: impl FnOnce(&str) -> T) -> T {
    let mut name = BUFFER.take();
    name.clear();
    write_name(&mut name, method, path);
    let made = make(&name);
    BUFFER.set(name);
    made
}

fn write_name(name: &mut String, method: &Method, path: &str) {
    let method = method.as_str();
    // Longer methods are made up by clients, and are one kind.
    let is_short = method.len() <= MAX_WORD_BYTES;
    name.push_str(if is_short { method } else { "*" });
    name.push(' ');
    // A call that started inline may have kept only as much of its path.
    let path = truncate(path);
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    for segment in segments.by_ref().take(MAX_SEGMENTS) {
        name.push('/');
        name.push_str(if is_word(segment) { segment } else { "{}" });
    }
    if segments.next().is_some() {
        name.push_str("/*");
    }
}

/// Returns `true` if a segment is a word of the application rather than an id. Ids contain digits,
/// as a rule; versions such as `v2` are words.
fn is_word(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes.len() <= MAX_WORD_BYTES
        && (bytes.iter().all(|&byte| IS_PLAIN[usize::from(byte)]) || is_version(bytes))
}

fn is_version(segment: &[u8]) -> bool {
    let [b'v' | b'V', digits @ ..] = segment else {
        return false;
    };
    digits.len() <= 2 && digits.iter().all(u8::is_ascii_digit)
}

/// Maps each byte to whether words may contain it.
static IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        is_plain[byte as usize] =
            byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        byte += 1;
    }
    is_plain
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_leaves_out_ids() {
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
            assert_eq!(with_default_name(&Method::POST, path, str::to_owned), kind);
        }
    }

    proptest! {
        #[test]
        fn name_is_short_for_any_path(path: String, method in "[A-Z]{1,300}") {
            let method = Method::from_bytes(method.as_bytes()).expect("a token");
            let length = with_default_name(&method, &path, str::len);
            prop_assert!(length <= (MAX_SEGMENTS + 1) * (MAX_WORD_BYTES + 1) + 2);
        }

        #[test]
        fn beginning_of_a_path_has_its_name(path: String) {
            let whole = with_default_name(&Method::POST, &path, str::to_owned);
            let start = with_default_name(&Method::POST, truncate(&path), str::to_owned);
            prop_assert_eq!(whole, start);
        }
    }
}
