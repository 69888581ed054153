//! `Link` and references: lines of the field. Each line is also taken as a reference.

use http::{HeaderValue, Uri, header::LINK};

use super::input::values;
use crate::follow::{links::linked, reference::resolve};

/// Checks that a link's target is between its brackets, that a line hides no other line, and that
/// references resolve to what HTTP can request.
pub fn link(input: &[u8]) {
    let mut headers = values(&LINK, input);
    let found = linked(&headers, "monitor").map(str::to_owned);
    assert_eq!(linked(&headers, "MONITOR"), found.as_deref());
    if let Some(target) = &found {
        assert!(!target.contains('>'));
        let lines = headers.get_all(LINK).iter();
        let mut lines = lines.filter_map(|line| str::from_utf8(line.as_bytes()).ok());
        let is_bracketed = |line: &str| {
            let mut starts = line.match_indices('<').map(|(at, _)| &line[at + 1..]);
            starts.any(|rest| {
                let inner = rest.split_once('>').map(|(inner, _)| inner.trim_ascii());
                inner == Some(target.as_str())
            })
        };
        assert!(lines.any(is_bracketed), "{target}");
    }
    headers.append(LINK, HeaderValue::from_static("</found>; rel=monitor"));
    let expected = found.as_deref().or(Some("/found"));
    assert_eq!(linked(&headers, "monitor"), expected);

    for base in ["https://a:1/b/c?q", "/b/c"] {
        let base: Uri = base.parse().expect("a URI");
        let lines = input.split(|&byte| byte == b'\n');
        for text in lines
            .filter_map(|line| str::from_utf8(line).ok())
            .chain(found.as_deref())
        {
            reference(&base, text);
        }
    }
}

fn reference(base: &Uri, text: &str) {
    let Some(uri) = resolve(base, text) else {
        return;
    };
    assert!(
        matches!(uri.scheme_str(), None | Some("http" | "https")),
        "{uri}"
    );
    assert!(uri.path().starts_with('/'), "{uri}");
    let authority = uri.authority().map(|authority| authority.as_str());
    assert!(
        authority.is_none_or(|authority| !authority.contains('@')),
        "{uri}"
    );
    let whole = uri.to_string();
    assert!(!whole.contains('#'), "{uri}");
    // Only a reference with a scheme or an authority leads to another origin.
    if !text.contains(':') && !text.contains("//") {
        let base_authority = base.authority().map(|authority| authority.as_str());
        assert_eq!(authority, base_authority, "{text}");
        assert_eq!(uri.scheme(), base.scheme(), "{text}");
    }
    // A path that begins with two slashes would be an authority.
    if authority.is_some() || !whole.starts_with("//") {
        assert_eq!(resolve(base, &whole), Some(uri), "{text}");
    }
}
