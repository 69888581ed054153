//! A URL that a webhook may be sent to.

use std::{error, fmt};

use http::Uri;
use url::{Host, Url};

use super::address_policy::AddressPolicy;
use crate::protocol::has_valid_authority;

/// The maximum length of a URL, before and after parsing.
const MAX_URL_BYTES: usize = 2048;

/// A checked URL: its scheme is allowed, and its host is not a literal of a forbidden address.
///
/// A name is checked when the client resolves it for a connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TargetUrl {
    uri: Uri,
}

impl TargetUrl {
    /// Parses the text as clients do (the URL Standard), and drops its fragment.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a URL, or if the policy forbids it.
    pub(crate) fn parse(text: &str, policy: &AddressPolicy) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        let mut url = Url::parse(text).map_err(|_| UrlError::Malformed)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && policy.is_insecure) {
            return Err(UrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::UserInfo);
        }
        // The name with a dot is the same receiver, with limits of its own.
        if matches!(url.host(), Some(Host::Domain(domain)) if domain.ends_with('.')) {
            return Err(UrlError::TrailingDot);
        }
        url.set_fragment(None);
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        let uri = Uri::try_from(url.as_str()).map_err(|_| UrlError::Malformed)?;
        // The second parser must see the host and port that the first one has seen.
        let is_same = has_valid_authority(&uri)
            && uri.host() == url.host_str()
            && uri.port_u16() == url.port();
        if !is_same || uri.host().is_none() {
            return Err(UrlError::Malformed);
        }
        if policy.forbids_literal(&uri) {
            return Err(UrlError::ForbiddenAddress);
        }
        Ok(Self { uri })
    }

    /// Returns the URI that the client requests.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// Writes the URL without its query, which can hold a secret.
impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}{}", self.uri.path())
    }
}

/// Writes what `Display` writes, for the same reason.
impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TargetUrl").field(&self.to_string()).finish()
    }
}

/// The reason why a text is not a [`TargetUrl`]. It repeats nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlError {
    /// It has more than 2,048 bytes.
    TooLong,
    /// It is not an absolute URL with a host.
    Malformed,
    /// Its scheme is not `https`, or `http` where the policy allows it.
    Scheme,
    /// It has a user name or a password.
    UserInfo,
    /// Its host ends with a dot.
    TrailingDot,
    /// Its host is a literal of a forbidden address.
    ForbiddenAddress,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the URL has more than {MAX_URL_BYTES} bytes"),
            Self::Malformed => f.write_str("the URL is malformed"),
            Self::Scheme => f.write_str("the scheme of the URL is not allowed"),
            Self::UserInfo => f.write_str("the URL has a user name or a password"),
            Self::TrailingDot => f.write_str("the host of the URL ends with a dot"),
            Self::ForbiddenAddress => f.write_str("the address of the URL is forbidden"),
        }
    }
}

impl error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::host_rule::AllowedHosts;

    fn parse(text: &str) -> Result<TargetUrl, UrlError> {
        TargetUrl::parse(text, &AddressPolicy::default())
    }

    fn rules(texts: &[&str]) -> AllowedHosts {
        let rules = texts.iter().map(|text| text.parse().expect("a rule"));
        rules.collect()
    }

    #[test]
    fn url_has_a_uri_and_a_safe_text() {
        for (text, uri, safe) in [
            (
                "https://Hooks.Example.com/a/b?token=s#f",
                "https://hooks.example.com/a/b?token=s",
                "https://hooks.example.com/a/b",
            ),
            (
                "https://h.example:8443",
                "https://h.example:8443/",
                "https://h.example:8443/",
            ),
            (
                " https:\\\\h.example:443\\a\n",
                "https://h.example/a",
                "https://h.example/a",
            ),
            (
                "https://bücher.example/ä",
                "https://xn--bcher-kva.example/%C3%A4",
                "https://xn--bcher-kva.example/%C3%A4",
            ),
            (
                "https://[2606:4700:0::1111]:444/",
                "https://[2606:4700::1111]:444/",
                "https://[2606:4700::1111]:444/",
            ),
        ] {
            let target = parse(text).expect(text);
            assert_eq!(target.uri(), uri);
            assert_eq!(target.to_string(), safe);
            assert_eq!(format!("{target:?}"), format!("TargetUrl({safe:?})"));
        }
    }

    #[test]
    fn url_is_refused_for_one_reason() {
        for (text, reason) in [
            ("", UrlError::Malformed),
            ("/hook", UrlError::Malformed),
            ("https://", UrlError::Malformed),
            ("https://h.example:65536/", UrlError::Malformed),
            ("https://h example/", UrlError::Malformed),
            ("https://[::1%25lo]/", UrlError::Malformed),
            ("http://h.example/", UrlError::Scheme),
            ("ftp://h.example/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("gopher://h.example/", UrlError::Scheme),
            ("https://u@h.example/", UrlError::UserInfo),
            ("https://:p@h.example/", UrlError::UserInfo),
            ("https://h.example./", UrlError::TrailingDot),
            ("https://10.0.0.1/", UrlError::ForbiddenAddress),
        ] {
            assert_eq!(parse(text).expect_err(text), reason, "{text}");
        }
    }

    #[test]
    fn url_may_have_2048_bytes_once_parsed() {
        let url = |padding: &str, times| format!("https://h.example/{}", padding.repeat(times));
        assert!(parse(&url("a", 2030)).is_ok());
        assert_eq!(parse(&url("a", 2031)), Err(UrlError::TooLong));
        assert!(parse(&url("ä", 338)).is_ok());
        assert_eq!(parse(&url("ä", 339)), Err(UrlError::TooLong));
        // The part that parsing removes counts too.
        let fragment = format!("https://h.example/#{}", "a".repeat(2030));
        assert_eq!(parse(&fragment), Err(UrlError::TooLong));
    }

    #[test]
    fn http_is_for_insecure_policies_alone() {
        let is_allowed = |policy: &AddressPolicy| TargetUrl::parse("http://10.0.0.1/", policy);
        let mut policy = AddressPolicy {
            internal: rules(&["10.0.0.1"]),
            is_insecure: false,
        };
        assert_eq!(is_allowed(&policy), Err(UrlError::Scheme));
        policy.is_insecure = true;
        assert!(is_allowed(&policy).is_ok());
    }

    #[test]
    fn internal_literal_is_allowed_on_its_port() {
        let policy = AddressPolicy {
            internal: rules(&["10.0.0.1", "[fd00::1]:8443"]),
            is_insecure: false,
        };
        for (url, is_allowed) in [
            ("https://10.0.0.1/", true),
            ("https://0xa.1:443/", true),
            ("https://[fd00:0::1]:8443/", true),
            ("https://10.0.0.1:8443/", false),
            ("https://10.0.0.2/", false),
            ("https://[fd00::1]/", false),
            ("https://[::ffff:10.0.0.1]/", false),
        ] {
            assert_eq!(TargetUrl::parse(url, &policy).is_ok(), is_allowed, "{url}");
        }
    }

    #[test]
    fn rule_does_not_match_similar_hosts() {
        let hosts = rules(&[
            "hooks.example.com",
            "*.example.org",
            "*.example.net:8443",
            "bücher.example",
            "8.8.8.8",
        ]);
        for (url, is_allowed) in [
            ("https://hooks.example.com/", true),
            ("https://HOOKS.EXAMPLE.COM:443/", true),
            ("https://xn--bcher-kva.example/", true),
            ("https://a.example.org/", true),
            ("https://a.b.example.org/", true),
            ("https://a.example.net:8443/", true),
            ("https://8.8.8.8/", true),
            ("https://0x08080808/", true),
            ("https://hooks.example.com:8443/", false),
            ("https://example.com/", false),
            ("https://a.hooks.example.com/", false),
            ("https://example.org/", false),
            ("https://evilexample.org/", false),
            ("https://a.example.org.evil.test/", false),
            ("https://a.example.org:8443/", false),
            ("https://a.example.net/", false),
            ("https://example.net:8443/", false),
            ("https://hooks.example.com.evil.test/", false),
            ("https://evil.test/hooks.example.com", false),
            ("https://evil.test/?hooks.example.com", false),
            ("https://8.8.4.4/", false),
        ] {
            let target = parse(url).expect(url);
            assert_eq!(hosts.allow(target.uri()), is_allowed, "{url}");
        }
        let target = parse("https://hooks.example.com/").expect("a URL");
        assert!(!AllowedHosts::default().allow(target.uri()));
    }
}
