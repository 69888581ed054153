use http::Uri;
use iri_string::{
    format::ToDedicatedString,
    types::{IriAbsoluteStr, IriReferenceStr},
};

/// Stands for the origin of a request that names none, as a service called in process may get.
const NAMELESS: &str = "http://nameless.invalid";

/// The address that `reference` means in a response from `base` (RFC 3986 §5, RFC 3987).
///
/// Its fragment is left out, as in any request. `None` for what is no reference, and for what can't
/// be asked for over HTTP.
pub(super) fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = IriReferenceStr::new(reference.trim_ascii()).ok()?;
    let nameless = base.authority().is_none();
    let path = base.path_and_query().map_or("/", |path| path.as_str());
    let base = match (nameless, base.scheme_str(), base.authority()) {
        (false, Some(scheme), Some(authority)) => format!("{scheme}://{authority}{path}"),
        // `//host/path` needs a scheme to be taken from somewhere.
        (true, ..) if reference.scheme_str().is_none() && reference.authority_str().is_some() => {
            return None;
        }
        (true, ..) => format!("{NAMELESS}{path}"),
        _ => return None,
    };
    let base = IriAbsoluteStr::new(&base).ok()?;
    let mut resolved = reference.resolve_against(base).to_dedicated_string();
    resolved.set_fragment(None);
    let resolved = resolved.encode_to_uri().to_dedicated_string();
    let relative = nameless && reference.scheme_str().is_none();
    let resolved = match resolved.as_str().strip_prefix(NAMELESS) {
        Some(path) if relative => path,
        _ => resolved.as_str(),
    };
    let resolved: Uri = resolved.parse().ok()?;
    // What is before an `@` reads like a host to people, and would be sent to nobody.
    let has_user = resolved
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    let is_http = matches!(resolved.scheme_str(), None | Some("http" | "https"));
    (is_http && !has_user && resolved.path().starts_with('/')).then_some(resolved)
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
        // The examples of §5.4 whose results are HTTP addresses, without their fragments.
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
        ] {
            assert_eq!(
                resolved("http://a/b/c/d;p?q", reference).as_deref(),
                Some(expected),
                "{reference}"
            );
        }
    }

    #[test]
    fn a_request_without_an_origin_leads_to_paths_or_to_full_addresses() {
        for (reference, expected) in [
            ("/jobs/1", Some("/jobs/1")),
            ("jobs/1?x", Some("/a/jobs/1?x")),
            ("https://b/x", Some("https://b/x")),
            ("//b/x", None),
            // Said in full, it is a host like any other.
            (
                "http://nameless.invalid/x",
                Some("http://nameless.invalid/x"),
            ),
        ] {
            assert_eq!(resolved("/a/b", reference).as_deref(), expected);
        }
    }

    #[test]
    fn what_is_not_asked_for_over_http_is_no_address() {
        for reference in [
            "ftp://a/x",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:text/plain,x",
            "mailto:a@b",
            "http:g",
            "http://user@a/x",
            "http://user:password@a/x",
            "/a b",
            "http://[::1/x",
            "\u{7}",
        ] {
            assert_eq!(resolved("http://a/b", reference), None, "{reference}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(base in "(http://[a-z]{1,3})?/[a-z/]{0,8}", reference in "\\PC{0,40}") {
            resolved(&base, &reference);
        }

        #[test]
        fn a_path_never_leaves_its_origin(reference in "/?[a-z.][a-z./%0-9]{0,20}") {
            let uri = resolve(&Uri::from_static("https://a:1/b/c"), &reference);
            if let Some(uri) = uri {
                prop_assert_eq!(uri.authority().map(|authority| authority.as_str()), Some("a:1"));
            }
        }
    }
}
