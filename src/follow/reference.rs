//! Resolves references in response headers.

use std::fmt::Write;

use http::Uri;
use iri_string::{
    format::ToDedicatedString,
    types::{UriAbsoluteStr, UriReferenceStr},
};

use crate::protocol::has_valid_authority;

/// A placeholder for the origin of a request without one, as in-process services get.
const PLACEHOLDER_ORIGIN: &str = "http://nameless.invalid";

/// Resolves a reference in a response from `base` (RFC 3986 §5) and drops its fragment.
///
/// Returns `None` if it is malformed, or if HTTP cannot request the URI.
pub(super) fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = encoded(reference.trim_ascii());
    let reference = UriReferenceStr::new(&reference).ok()?;
    let (scheme, path) = (base.scheme_str(), base.path_and_query());
    let mut base_path = String::new();
    // No part of it is a host, even if it begins with `//`.
    encode(path.map_or("/", |path| path.as_str()), &mut base_path);
    let base = match (scheme, base.authority()) {
        (Some(scheme), Some(authority)) => {
            // User information does not affect the result.
            let (_, host) = authority
                .as_str()
                .rsplit_once('@')
                .unwrap_or(("", authority.as_str()));
            format!("{scheme}://{host}{base_path}")
        }
        // `//host/path` has no scheme, and the base has none to add.
        (None, None) if reference.scheme_str().is_some() || reference.authority_str().is_none() => {
            format!("{PLACEHOLDER_ORIGIN}{base_path}")
        }
        _ => return None,
    };
    let base = UriAbsoluteStr::new(&base).ok()?;
    let resolved = reference.resolve_against(base).to_dedicated_string();
    let resolved = match resolved.as_str().strip_prefix(PLACEHOLDER_ORIGIN) {
        Some(path) if scheme.is_none() && reference.scheme_str().is_none() => path,
        _ => resolved.as_str(),
    };
    let resolved: Uri = resolved.parse().ok()?;
    // Text before an `@` looks like a host but is not one, and a client would replace a port that
    // does not exist by the default one. Such URIs are refused.
    let is_http = match resolved.scheme_str() {
        None => resolved.authority().is_none(),
        Some("http" | "https") => has_valid_authority(&resolved),
        Some(_) => false,
    };
    (is_http && resolved.path().starts_with('/')).then_some(resolved)
}

/// Drops the fragment and percent-encodes what some servers do not, as in `/a b?c[]={d}`.
///
/// Leaves the host unchanged.
fn encoded(reference: &str) -> String {
    let reference = reference.split('#').next().unwrap_or_default();
    let host = match reference.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => {
            scheme.len() + 2 + rest.find(['/', '?']).unwrap_or(rest.len())
        }
        _ => 0,
    };
    let (host, rest) = reference.split_at(host);
    let mut encoded = host.to_owned();
    encode(rest, &mut encoded);
    encoded
}

/// Appends a path or a query, and percent-encodes what is not valid there.
fn encode(text: &str, to: &mut String) {
    for (at, byte) in text.bytes().enumerate() {
        let is_code = || {
            let code = text.as_bytes().get(at + 1..at + 3);
            code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
        };
        let is_valid = match byte {
            b'%' => is_code(),
            byte => byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=".contains(&byte),
        };
        if is_valid {
            to.push(byte.into());
        } else {
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(base: &str, reference: &str) -> Option<String> {
        let base: Uri = base.parse().expect("a URI");
        resolve(&base, reference).map(|uri| uri.to_string())
    }

    #[test]
    fn references_resolve_as_in_rfc_3986() {
        // The examples of §5.4 that result in HTTP URIs, without their fragments.
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("./g/.", "http://a/b/c/g/"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("https://b/x?y", "https://b/x?y"),
            (" /g ", "http://a/g"),
            ("/caf\u{e9}", "http://a/caf%C3%A9"),
            ("/a b|c", "http://a/a%20b%7Cc"),
            (
                "?x[y]={z}&100%&%7e",
                "http://a/b/c/d;p?x%5By%5D=%7Bz%7D&100%25&%7e",
            ),
            ("/x#/y#z", "http://a/x"),
            // Only browsers read these as `//`.
            ("/\\b/x", "http://a/%5Cb/x"),
            ("\\\\b/x", "http://a/b/c/%5C%5Cb/x"),
            ("http://[::1]:8/x", "http://[::1]:8/x"),
        ] {
            assert_eq!(
                resolved("http://a/b/c/d;p?q", reference).as_deref(),
                Some(expected),
                "{reference}"
            );
        }
    }

    #[test]
    fn base_may_have_any_spelling() {
        for base in [
            "http://user:password@a/b?x={y}",
            "http://a/b?x[]=1",
            "http://a/{b}",
            "http://a/b|c",
        ] {
            assert_eq!(
                resolved(base, "/jobs/1").as_deref(),
                Some("http://a/jobs/1"),
                "{base}"
            );
            assert_eq!(
                resolved(base, "jobs/1").as_deref(),
                Some("http://a/jobs/1"),
                "{base}"
            );
        }
    }

    #[test]
    fn base_path_may_begin_with_two_slashes() {
        for (base, reference, expected) in [
            ("http://a//b%/c", "/jobs/1", "http://a/jobs/1"),
            ("http://a//b|c/d", "jobs/1", "http://a//b%7Cc/jobs/1"),
        ] {
            assert_eq!(resolved(base, reference).as_deref(), Some(expected));
        }
    }

    #[test]
    fn request_without_origin_resolves_to_paths() {
        for (reference, expected) in [
            ("/jobs/1", Some("/jobs/1")),
            ("jobs/1?x", Some("/a/jobs/1?x")),
            ("https://b/x", Some("https://b/x")),
            ("//b/x", None),
            // Written in full, it is an ordinary host.
            (
                "http://nameless.invalid/x",
                Some("http://nameless.invalid/x"),
            ),
        ] {
            assert_eq!(resolved("/a/b", reference).as_deref(), expected);
        }
    }

    #[test]
    fn uris_of_other_schemes_are_refused() {
        for reference in [
            "ftp://a/x",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:text/plain,x",
            "mailto:a@b",
            "http:g",
            "http://user@a/x",
            "http://user:password@a/x",
            "http://a b/x",
            "http://caf\u{e9}/x",
            "http://[::1/x",
        ] {
            assert_eq!(resolved("http://a/b", reference), None, "{reference}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(
            base in "(http://[a-z]{1,3})?/[a-z/]{0,8}",
            reference in "\\PC{0,40}",
        ) {
            resolved(&base, &reference);
        }

        #[test]
        fn path_stays_on_its_origin(reference in "/?[a-z.][a-z./%0-9]{0,20}") {
            let uri = resolve(&Uri::from_static("https://a:1/b/c"), &reference);
            if let Some(uri) = uri {
                prop_assert_eq!(uri.authority().map(|authority| authority.as_str()), Some("a:1"));
            }
        }
    }
}
