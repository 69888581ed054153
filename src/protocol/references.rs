//! Resolves the relative references of a response (RFC 3986 §5, RFC 9110 §10.2.2).

use std::{iter, ops::Range};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The fields whose values are references, or contain some.
static FIELDS: [HeaderName; 4] = [
    header::LOCATION,
    header::CONTENT_LOCATION,
    header::LINK,
    header::REFRESH,
];

/// Returns `true` if a response's fields have a reference that depends on the request's target.
#[cfg(feature = "server")]
pub(crate) fn has_relative_references(headers: &HeaderMap) -> bool {
    headers
        .iter()
        .filter(|(name, _)| FIELDS.contains(name))
        .any(|(name, value)| {
            let value = value.as_bytes();
            let mut found = references(name, value).into_iter();
            found.any(|reference| is_relative(&value[reference]))
        })
}

/// Replaces the references that depend on the request's target. `target` is its path and query.
///
/// `write` gets each resolved reference, which is an absolute path with query and fragment.
pub(crate) fn resolve_references(
    headers: &mut HeaderMap,
    target: &str,
    write: impl Fn(&mut Vec<u8>, &[u8]),
) {
    if !target.starts_with('/') {
        return;
    }
    let target = escaped(target);
    for (name, value) in headers.iter_mut() {
        if !FIELDS.contains(name) {
            continue;
        }
        let bytes = value.as_bytes();
        let (mut resolved, mut end) = (Vec::new(), 0);
        for reference in references(name, bytes) {
            let text = &bytes[reference.clone()];
            if is_relative(text) {
                resolved.extend_from_slice(&bytes[end..reference.start]);
                write(&mut resolved, &resolve(&target, text));
                end = reference.end;
            }
        }
        if end == 0 && resolved.is_empty() {
            continue;
        }
        resolved.extend_from_slice(&bytes[end..]);
        if let Ok(resolved) = HeaderValue::from_bytes(&resolved) {
            let is_sensitive = value.is_sensitive();
            *value = resolved;
            value.set_sensitive(is_sensitive);
        }
    }
}

/// Returns the places of the references in a field's value.
fn references(name: &HeaderName, value: &[u8]) -> Vec<Range<usize>> {
    match name {
        _ if name == header::LINK => link_references(value),
        _ if name == header::REFRESH => refresh_reference(value).into_iter().collect(),
        _ => {
            let start = value.len() - value.trim_ascii_start().len();
            iter::once(start..start + value.trim_ascii().len()).collect()
        }
    }
}

/// Returns the places of the targets and anchors in a `Link` (RFC 8288 §3).
fn link_references(value: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        at += 1;
        let start = at;
        match byte {
            b'<' => {
                at = start + until(&value[start..], b'>');
                found.push(start..at);
            }
            b'"' => {
                while value.get(at).is_some_and(|&byte| byte != b'"') {
                    at += if value[at] == b'\\' { 2 } else { 1 };
                }
                at = at.min(value.len());
                if is_anchor(&value[..start - 1]) {
                    found.push(start..at);
                }
            }
            _ => continue,
        }
        // Beyond the closing character.
        at += 1;
    }
    found
}

/// Returns `true` if the quoted string that follows is the `anchor` of a link.
fn is_anchor(before: &[u8]) -> bool {
    let name = before.trim_ascii_end().strip_suffix(b"=");
    let name = name.unwrap_or_default().trim_ascii_end();
    name.rsplit(|&byte| byte == b';')
        .next()
        .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"anchor"))
}

/// Returns the place of the URL in a `Refresh`, such as `5; url=next` (HTML standard, §7.4.6).
fn refresh_reference(value: &[u8]) -> Option<Range<usize>> {
    let separator = value.iter().position(|byte| b";,".contains(byte))?;
    let mut start = separator + 1;
    let skip_space = |at: usize| at + value[at..].len() - value[at..].trim_ascii_start().len();
    start = skip_space(start);
    let name = value.get(start..start + 3);
    if name.is_some_and(|name| name.eq_ignore_ascii_case(b"url")) {
        let equals = skip_space(start + 3);
        if value.get(equals) == Some(&b'=') {
            start = skip_space(equals + 1);
        }
    }
    let rest = &value[start..];
    let (start, length) = match rest.first() {
        Some(&quote) if b"'\"".contains(&quote) => (start + 1, until(&rest[1..], quote)),
        _ => (start, rest.trim_ascii_end().len()),
    };
    Some(start..start + length)
}

/// Returns the number of bytes before `end`, or of all bytes if there is none.
fn until(bytes: &[u8], end: u8) -> usize {
    let found = bytes.iter().position(|&byte| byte == end);
    found.unwrap_or(bytes.len())
}

/// Returns `true` if a reference has neither a scheme nor a host nor an absolute path.
fn is_relative(reference: &[u8]) -> bool {
    let head = &reference[..until_any(reference, b"/?#")];
    let has_scheme = head.first().is_some_and(u8::is_ascii_alphabetic) && head.contains(&b':');
    !reference.starts_with(b"/") && !has_scheme
}

fn until_any(bytes: &[u8], ends: &[u8]) -> usize {
    let found = bytes.iter().position(|byte| ends.contains(byte));
    found.unwrap_or(bytes.len())
}

/// Percent-encodes the characters that a URI cannot have, and those that would end a reference.
///
/// Servers accept some of them in a target.
fn escaped(target: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = Vec::with_capacity(target.len());
    for byte in target.bytes() {
        if byte.is_ascii_graphic() && !b"\"#'<>\\^`{|}".contains(&byte) {
            escaped.push(byte);
        } else {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            escaped.extend_from_slice(&[b'%', high, low]);
        }
    }
    escaped
}

/// Resolves a relative reference against a path and query, as RFC 3986 §5.2.2 does.
fn resolve(target: &[u8], reference: &[u8]) -> Vec<u8> {
    let (base_path, base_query) = target.split_at(until_any(target, b"?"));
    let (path, rest) = reference.split_at(until_any(reference, b"?#"));
    let mut resolved = if path.is_empty() {
        base_path.to_vec()
    } else {
        let directory = base_path.iter().rposition(|&byte| byte == b'/');
        let directory = &base_path[..=directory.unwrap_or_default()];
        without_dot_segments(&[directory, path].concat())
    };
    // A path that begins with two slashes would be read as the name of a host.
    if resolved.starts_with(b"//") {
        resolved.splice(0..0, *b"/.");
    }
    if path.is_empty() && !rest.starts_with(b"?") {
        resolved.extend_from_slice(base_query);
    }
    resolved.extend_from_slice(rest);
    resolved
}

/// Removes `.` and `..` from an absolute path (RFC 3986 §5.2.4).
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_with_slash = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_with_slash = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    if ends_with_slash {
        kept.push(b"");
    }
    let mut resolved = Vec::with_capacity(path.len());
    for segment in kept {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    resolved
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(name: HeaderName, value: &str, target: &str) -> String {
        let value = HeaderValue::from_str(value).expect("a field value");
        let mut headers = HeaderMap::from_iter([(name.clone(), value)]);
        resolve_references(&mut headers, target, |to, path| to.extend_from_slice(path));
        headers[name].to_str().expect("text").to_owned()
    }

    #[test]
    fn location_resolves_as_in_rfc_3986() {
        for (reference, expected) in [
            ("g:h", "g:h"),
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("//g", "//g"),
            ("https://g/h", "https://g/h"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
            ("#s", "/b/c/d;p?q#s"),
            ("g?y#s", "/b/c/g?y#s"),
            (";x", "/b/c/;x"),
            ("", "/b/c/d;p?q"),
            (".", "/b/c/"),
            ("./", "/b/c/"),
            ("..", "/b/"),
            ("../g", "/b/g"),
            ("../..", "/"),
            ("../../../g", "/g"),
            ("g;x=1/../y", "/b/c/y"),
            ("g?y/../x", "/b/c/g?y/../x"),
            ("1:2", "/b/c/1:2"),
            ("./a:b", "/b/c/a:b"),
        ] {
            let actual = resolved(header::LOCATION, reference, "/b/c/d;p?q");
            assert_eq!(actual, expected, "{reference}");
        }
    }

    #[test]
    fn path_of_two_slashes_names_no_host() {
        let actual = resolved(header::LOCATION, "y", "//evil.example/x");
        assert_eq!(actual, "/.//evil.example/y");
        let actual = resolved(header::LOCATION, "?y", "//evil.example/x");
        assert_eq!(actual, "/.//evil.example/x?y");
    }

    #[test]
    fn links_are_resolved_and_their_parameters_kept() {
        for (value, expected) in [
            (
                "<2>; rel=next, </1>;rel=prev, <https://a/>",
                "</r/2>; rel=next, </1>;rel=prev, <https://a/>",
            ),
            (
                r#"<x>; title="<y>, \"<z>", <>; rel="self""#,
                r#"</r/x>; title="<y>, \"<z>", </r/s>; rel="self""#,
            ),
            (
                r##"</x>; anchor = "#part"; rel="up""##,
                r##"</x>; anchor = "/r/s#part"; rel="up""##,
            ),
            ("<x", "</r/x"),
            (r#"</x>; title="\"#, r#"</x>; title="\"#),
        ] {
            assert_eq!(resolved(header::LINK, value, "/r/s"), expected);
        }
    }

    #[test]
    fn refresh_is_resolved_in_each_notation() {
        for (value, expected) in [
            ("5", "5"),
            ("5; url=x", "5; url=/r/x"),
            ("0;URL = 'x' ", "0;URL = '/r/x' "),
            ("1, x", "1, /r/x"),
            ("1;url=\"x", "1;url=\"/r/x"),
            ("1;url=https://a/", "1;url=https://a/"),
        ] {
            assert_eq!(resolved(header::REFRESH, value, "/r/s"), expected);
        }
    }

    #[test]
    fn target_cannot_end_a_reference() {
        let target = r#"/a"b'c>/d"#;
        for (name, value, expected) in [
            (
                header::LINK,
                r#"<x>; anchor="y""#,
                r#"</a%22b%27c%3E/x>; anchor="/a%22b%27c%3E/y""#,
            ),
            (header::REFRESH, "1; url='x'", "1; url='/a%22b%27c%3E/x'"),
        ] {
            assert_eq!(resolved(name, value, target), expected);
        }
    }

    #[test]
    fn target_without_a_path_resolves_nothing() {
        assert_eq!(resolved(header::LOCATION, "x", "*"), "x");
    }

    proptest! {
        #[test]
        fn arbitrary_values_do_not_panic(value in "[ -~]{0,40}", target in "/[!-~]{0,20}") {
            for name in FIELDS.clone() {
                let actual = resolved(name.clone(), &value, &target);
                // Once resolved, a value does not depend on the target any more.
                prop_assert_eq!(&resolved(name, &actual, "/elsewhere/"), &actual);
            }
        }
    }
}
