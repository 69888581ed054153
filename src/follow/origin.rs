use http::Uri;

use super::{error::Reason, reference::resolve};

/// Scheme, host and port (RFC 6454 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` where the address names no origin, or one that is not HTTP's.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
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

/// An address to be asked.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) uri: Uri,
    /// Whether this is the origin of the original request, and no other one had a say in the way
    /// here: only then do the request's own headers go along.
    pub(super) is_home: bool,
}

/// Where the follow-up requests of one original request may go.
#[derive(Debug)]
pub(super) struct Rules {
    /// Where the original request went; `None` for a request without an origin.
    home: Option<Origin>,
    allowed: Vec<Origin>,
}

impl Rules {
    pub(super) fn new(original: &Uri, allowed: &[Origin]) -> Self {
        Self {
            home: Origin::of(original),
            allowed: allowed.to_vec(),
        }
    }

    /// The address that `reference`, in a response from `from`, names.
    pub(super) fn admit(&self, from: &Target, reference: &str) -> Result<Target, Reason> {
        let uri = resolve(&from.uri, reference).ok_or(Reason::NoAddress)?;
        let origin = Origin::of(&uri);
        let is_home = origin == self.home;
        let downgrade = [&self.home, &Origin::of(&from.uri)]
            .into_iter()
            .flatten()
            .any(|before| before.is_https)
            && origin.as_ref().is_none_or(|origin| !origin.is_https);
        let is_allowed = is_home || origin.is_some_and(|origin| self.allowed.contains(&origin));
        if downgrade || !is_allowed {
            return Err(Reason::OtherOrigin(uri));
        }
        let is_home = is_home && from.is_home;
        Ok(Target { uri, is_home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Target {
        let uri = uri.parse().expect("a URI");
        Target { uri, is_home: true }
    }

    fn rules(home: &str, allowed: &[&str]) -> Rules {
        let origin = |uri: &&str| Origin::of(&uri.parse().expect("a URI")).expect("an origin");
        let allowed: Vec<_> = allowed.iter().map(origin).collect();
        Rules::new(&target(home).uri, &allowed)
    }

    #[test]
    fn origins_are_the_same_in_every_spelling() {
        let rules = rules("http://Example.com/a", &[]);
        let from = target("http://Example.com/a");
        for same in ["/b", "http://example.COM:80/b", "HTTP://example.com/b"] {
            assert!(
                rules.admit(&from, same).is_ok_and(|target| target.is_home),
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
            let refused = rules.admit(&from, other);
            assert!(matches!(refused, Err(Reason::OtherOrigin(_))), "{other}");
        }
        for none in [
            "ftp://example.com/b",
            "http://user@example.com/b",
            "http://%",
        ] {
            let refused = rules.admit(&from, none);
            assert!(matches!(refused, Err(Reason::NoAddress)), "{none}");
        }
    }

    #[test]
    fn no_list_allows_a_downgrade() {
        let rules = rules("https://a/x", &["http://a", "https://b", "http://c"]);
        let from = target("https://a/x");
        assert!(rules.admit(&from, "https://b/y").is_ok());
        assert!(rules.admit(&from, "http://a/y").is_err());
        assert!(rules.admit(&from, "http://c/y").is_err());
    }

    #[test]
    fn a_way_through_another_origin_does_not_lead_home() {
        let rules = rules("https://a/x", &["https://b"]);
        let away = rules
            .admit(&target("https://a/x"), "https://b/y")
            .expect("allowed");
        assert!(!away.is_home);
        let back = rules.admit(&away, "https://a/z").expect("allowed");
        assert!(!back.is_home, "another origin chose this address");
    }

    #[test]
    fn a_request_without_an_origin_stays_with_paths() {
        let rules = rules("/x", &["https://b"]);
        let from = target("/x");
        assert!(rules.admit(&from, "/y").is_ok_and(|target| target.is_home));
        assert!(
            rules
                .admit(&from, "https://b/y")
                .is_ok_and(|target| !target.is_home)
        );
        assert!(rules.admit(&from, "https://c/y").is_err());
        let away = rules.admit(&from, "https://b/y").expect("allowed");
        assert!(rules.admit(&away, "http://b/y").is_err(), "a downgrade");
    }
}
