//! Decides which hosts may have forbidden addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

use super::{address::is_forbidden, host_rule::AllowedHosts};

/// The rule on addresses, with its exceptions. By default there are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressPolicy {
    /// The hosts that may have forbidden addresses, such as receivers in the same network.
    pub(crate) internal: AllowedHosts,
    /// Allows every address, and `http`. It is for development.
    pub(crate) is_insecure: bool,
}

impl AddressPolicy {
    /// Returns `true` if the host of this URI may have a forbidden address.
    pub(super) fn allows_internal(&self, uri: &Uri) -> bool {
        self.is_insecure || self.internal.allow(uri)
    }

    /// Returns `true` if the host of this URI is a literal of a forbidden address.
    ///
    /// A connector does not resolve literals, so the check of resolved names misses them.
    pub(super) fn forbids_literal(&self, uri: &Uri) -> bool {
        uri.host().and_then(literal).is_some_and(is_forbidden) && !self.allows_internal(uri)
    }
}

/// Returns the address of a literal, for each text that `HttpConnector` does not resolve.
fn literal(host: &str) -> Option<IpAddr> {
    let inside = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = inside.unwrap_or(host);
    let v4 = host.parse::<Ipv4Addr>().map(IpAddr::from);
    v4.or_else(|_| host.parse::<Ipv6Addr>().map(IpAddr::from))
        .ok()
}
