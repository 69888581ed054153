//! Names the hosts that a webhook may go to.

use std::{error, fmt, str::FromStr};

use http::{Uri, uri::Scheme};
use url::Host;

const WILDCARD: &str = "*.";

/// A host, or all subdomains of a domain, that a webhook may go to.
///
/// It is parsed from one of these texts, in any case, with or without IDNA's encoding:
///
/// | text | allows |
/// |---|---|
/// | `hooks.example.com` | this host |
/// | `*.example.com` | the subdomains of `example.com` at any depth, and not `example.com` itself |
/// | `192.0.2.1`, `[2001:db8::1]` | this address |
///
/// Each can end with a `:port`. Without one, the rule allows only the default port of the URL's
/// scheme, which is 443 for `https`.
///
/// ```
/// use tower_accepted::webhook::HostRule;
///
/// let rule: HostRule = "*.Example.com:8443".parse()?;
/// assert_eq!(rule.to_string(), "*.example.com:8443");
/// assert!("*".parse::<HostRule>().is_err());
/// # Ok::<(), tower_accepted::webhook::ParseHostRuleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostRule {
    /// As `url` serializes it: in lower case, with IDNA's encoding, with brackets around IPv6.
    host: String,
    includes_subdomains_only: bool,
    port: Option<u16>,
}

impl HostRule {
    /// Returns `true` if the rule allows the host and port of this URI.
    ///
    /// The URI must have `url`'s serialization of a host, as that of a `TargetUrl` has.
    fn allows(&self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else {
            return false;
        };
        let is_host = if self.includes_subdomains_only {
            host.strip_suffix(&*self.host)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|subdomain| !subdomain.is_empty())
        } else {
            host == self.host
        };
        let default = default_port(uri);
        is_host && uri.port_u16().or(default) == self.port.or(default)
    }
}

/// Returns the port of a URI without one.
pub(super) fn default_port(uri: &Uri) -> Option<u16> {
    let scheme = uri.scheme()?;
    Some(if *scheme == Scheme::HTTPS { 443 } else { 80 })
}

impl FromStr for HostRule {
    type Err = ParseHostRuleError;

    /// # Errors
    ///
    /// Fails for any text that the table above does not have.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseHostRuleError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<HostRule> {
    let (host, port) = match text.rsplit_once(':') {
        // The colon is one of an IPv6 address.
        Some(_) if text.ends_with(']') => (text, None),
        // `u16::from_str` also accepts a plus sign.
        Some((_, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) => return None,
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (text, None),
    };
    let subdomains = host.strip_prefix(WILDCARD);
    let host = Host::parse(subdomains.unwrap_or(host)).ok()?;
    if let Host::Domain(domain) = &host {
        if domain.contains('*') || domain.split('.').any(str::is_empty) {
            return None;
        }
    } else if subdomains.is_some() {
        return None;
    }
    Some(HostRule {
        host: host.to_string(),
        includes_subdomains_only: subdomains.is_some(),
        port,
    })
}

/// Writes the rule as a text that parses to it.
impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.includes_subdomains_only {
            f.write_str(WILDCARD)?;
        }
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The error of parsing a [`HostRule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseHostRuleError(String);

impl fmt::Display for ParseHostRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(
            f,
            "invalid host rule {text:?}: expected HOST[:PORT] or *.DOMAIN[:PORT]"
        )
    }
}

impl error::Error for ParseHostRuleError {}

/// The hosts that webhooks may go to: those that at least one rule allows.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllowedHosts {
    rules: Vec<HostRule>,
}

impl AllowedHosts {
    /// Returns `true` if no rule allows a host.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns `true` if a rule allows the host and port of this URI, which is a `TargetUrl`'s.
    pub(super) fn allow(&self, uri: &Uri) -> bool {
        self.rules.iter().any(|rule| rule.allows(uri))
    }
}

impl FromIterator<HostRule> for AllowedHosts {
    fn from_iter<I: IntoIterator<Item = HostRule>>(rules: I) -> Self {
        let rules = rules.into_iter().collect();
        Self { rules }
    }
}
