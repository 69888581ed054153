//! Restricts follow-up requests to allowed origins.

use http::Uri;

use super::{error::Reason, reference::resolve};
use crate::protocol::has_valid_authority;

/// A scheme, host and port (RFC 6454 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Returns `None` if the text is not `scheme://host[:port]`, with a scheme of HTTP.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let has_path = uri.path_and_query().is_some_and(|path| path != "/");
        if has_path || !has_valid_authority(&uri) {
            return None;
        }
        Self::from_uri(&uri)
    }

    /// Returns `None` if the URI has no origin, or if its scheme is not HTTP's.
    pub(super) fn from_uri(uri: &Uri) -> Option<Self> {
        let is_https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self {
            is_https,
            host: uri.host()?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
        })
    }
}

/// The URI of a follow-up request.
#[derive(Debug, Clone)]
pub(super) struct FollowTarget {
    pub(super) uri: Uri,
    /// Permits sending the original request's headers. It is set if the URI is on the original
    /// origin and no response from another origin has named it.
    pub(super) is_home: bool,
}

impl FollowTarget {
    /// Returns the resource of this name below this one: `/jobs/1/stream` below `/jobs/1`.
    ///
    /// A query stays. Returns `None` if the URI is too long.
    pub(super) fn below(&self, name: &str) -> Option<Self> {
        let path = self.uri.path().trim_end_matches('/');
        let query = self.uri.query().map(|query| format!("?{query}"));
        self.with_path_and_query(&format!("{path}/{name}{}", query.unwrap_or_default()))
    }

    /// Adds a parameter to the query. Returns `None` if the URI is too long.
    pub(super) fn with_parameter(&self, parameter: &str) -> Option<Self> {
        let separator = if self.uri.query().is_some() { '&' } else { '?' };
        let target = self.uri.path_and_query().map_or("/", |path| path.as_str());
        self.with_path_and_query(&format!("{target}{separator}{parameter}"))
    }

    fn with_path_and_query(&self, path_and_query: &str) -> Option<Self> {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(path_and_query.parse().ok()?);
        Some(Self {
            uri: Uri::from_parts(parts).ok()?,
            is_home: self.is_home,
        })
    }
}

/// The origins that the follow-up requests of one original request may go to.
#[derive(Debug)]
pub(super) struct OriginPolicy {
    /// The origin of the original request, if its URI has one.
    home: Option<Origin>,
    allowed: Vec<Origin>,
}

impl OriginPolicy {
    pub(super) fn new(original: &Uri, allowed: &[Origin]) -> Self {
        Self {
            home: Origin::from_uri(original),
            allowed: allowed.to_vec(),
        }
    }

    /// Resolves `reference` from a response of `from`.
    ///
    /// # Errors
    ///
    /// Returns [`Reason::InvalidUri`] if it is not a URI of HTTP. Returns [`Reason::OtherOrigin`]
    /// if its origin is not allowed or if it leads from `https` to `http`.
    pub(super) fn resolve(
        &self,
        from: &FollowTarget,
        reference: &str,
    ) -> Result<FollowTarget, Reason> {
        let uri = resolve(&from.uri, reference).ok_or(Reason::InvalidUri)?;
        let origin = Origin::from_uri(&uri);
        let is_home = origin == self.home;
        let is_downgrade = [&self.home, &Origin::from_uri(&from.uri)]
            .into_iter()
            .flatten()
            .any(|before| before.is_https)
            && origin.as_ref().is_none_or(|origin| !origin.is_https);
        let is_allowed = is_home || origin.is_some_and(|origin| self.allowed.contains(&origin));
        if is_downgrade || !is_allowed {
            return Err(Reason::OtherOrigin(uri));
        }
        let is_home = is_home && from.is_home;
        Ok(FollowTarget { uri, is_home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> FollowTarget {
        let uri = uri.parse().expect("a URI");
        FollowTarget { uri, is_home: true }
    }

    fn policy(home: &str, allowed: &[&str]) -> OriginPolicy {
        let origin =
            |uri: &&str| Origin::from_uri(&uri.parse().expect("a URI")).expect("an origin");
        let allowed: Vec<_> = allowed.iter().map(origin).collect();
        OriginPolicy::new(&target(home).uri, &allowed)
    }

    #[test]
    fn resources_below_a_target_keep_its_query() {
        for (uri, stream) in [
            ("/jobs/1", "/jobs/1/stream?offset=7"),
            ("http://a/jobs/1", "http://a/jobs/1/stream?offset=7"),
            ("https://a:1/jobs/1/", "https://a:1/jobs/1/stream?offset=7"),
            ("http://a/job?id=1", "http://a/job/stream?id=1&offset=7"),
            ("http://a", "http://a/stream?offset=7"),
        ] {
            let below = target(uri).below("stream").expect("a URI");
            let found = below.with_parameter("offset=7").expect("a URI");
            assert_eq!(found.uri, *stream);
        }
    }

    #[test]
    fn equal_origins_match_in_every_spelling() {
        let policy = policy("http://Example.com/a", &[]);
        let from = target("http://Example.com/a");
        for same in ["/b", "http://example.COM:80/b", "HTTP://example.com/b"] {
            assert!(
                policy
                    .resolve(&from, same)
                    .is_ok_and(|target| target.is_home),
                "{same}"
            );
        }
        for other in [
            "https://example.com/b",
            "http://example.com:81/b",
            "http://www.example.com/b",
            "//169.254.169.254/latest/meta-data",
            "http://localhost/",
            "http://example.com.evil.example/",
        ] {
            let refused = policy.resolve(&from, other);
            assert!(matches!(refused, Err(Reason::OtherOrigin(_))), "{other}");
        }
        for none in [
            "ftp://example.com/b",
            "http://user@example.com/b",
            "http://%",
        ] {
            let refused = policy.resolve(&from, none);
            assert!(matches!(refused, Err(Reason::InvalidUri)), "{none}");
        }
    }

    #[test]
    fn allowed_origins_do_not_allow_a_downgrade() {
        let policy = policy("https://a/x", &["http://a", "https://b", "http://c"]);
        let from = target("https://a/x");
        assert!(policy.resolve(&from, "https://b/y").is_ok());
        assert!(policy.resolve(&from, "http://a/y").is_err());
        assert!(policy.resolve(&from, "http://c/y").is_err());
    }

    #[test]
    fn port_that_does_not_exist_is_no_origin() {
        for origin in ["http://a:99999", "https://b:65536", "https://b:+443"] {
            assert_eq!(Origin::parse(origin), None, "{origin}");
            // A client would connect to the default port, with the original request's headers.
            for from in ["http://a/x", "/x"] {
                let policy = policy(from, &["https://b"]);
                let resolved = policy.resolve(&target(from), &format!("{origin}/y"));
                assert!(matches!(resolved, Err(Reason::InvalidUri)), "{origin}");
            }
        }
    }

    #[test]
    fn target_named_by_another_origin_is_not_home() {
        let policy = policy("https://a/x", &["https://b"]);
        let away = policy
            .resolve(&target("https://a/x"), "https://b/y")
            .expect("allowed");
        assert!(!away.is_home);
        let back = policy.resolve(&away, "https://a/z").expect("allowed");
        assert!(!back.is_home, "another origin named this URI");
    }

    #[test]
    fn request_without_origin_resolves_to_paths() {
        let policy = policy("/x", &["https://b"]);
        let from = target("/x");
        assert!(
            policy
                .resolve(&from, "/y")
                .is_ok_and(|target| target.is_home)
        );
        assert!(
            policy
                .resolve(&from, "https://b/y")
                .is_ok_and(|target| !target.is_home)
        );
        assert!(policy.resolve(&from, "https://c/y").is_err());
        let away = policy.resolve(&from, "https://b/y").expect("allowed");
        assert!(policy.resolve(&away, "http://b/y").is_err(), "a downgrade");
    }
}
