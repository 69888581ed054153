//! Decides which addresses no webhook may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The forbidden IPv4 networks, and the lengths of their prefixes.
///
/// The list follows IANA's registry of special-purpose addresses. It includes the few networks of
/// the registry that are reachable from everywhere, since none of them has a receiver.
const IPV4_NETWORKS: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8), // "this network"; Linux connects 0.0.0.0 to itself
    (Ipv4Addr::new(10, 0, 0, 0), 8), // private
    (Ipv4Addr::new(100, 64, 0, 0), 10), // behind a carrier's NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8), // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // the host below a virtual machine of Azure
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, with the metadata services of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12), // private
    (Ipv4Addr::new(192, 0, 0, 0), 24), // assignments of the IETF
    (Ipv4Addr::new(192, 0, 2, 0), 24), // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24), // relays of 6to4, deprecated
    (Ipv4Addr::new(192, 168, 0, 0), 16), // private
    (Ipv4Addr::new(198, 18, 0, 0), 15), // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24), // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4), // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4), // reserved, and the broadcast address
];

/// The global unicast addresses of IPv6. IANA assigns no other addresses to hosts.
///
/// Outside are the unspecified address, loopback, IPv4-compatible and IPv4-translated addresses,
/// local NAT64 (`64:ff9b:1::/48`), discard, segment routing, unique local, link-local, site-local
/// and multicast addresses.
const IPV6_GLOBAL: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The forbidden networks inside [`IPV6_GLOBAL`].
///
/// Teredo and 6to4 embed an IPv4 address. Both are out of use, so all their addresses are
/// forbidden.
const IPV6_NETWORKS: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // assignments of the IETF, with Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// NAT64's well-known prefix. The resolver of a network without IPv4 returns public IPv4 addresses
/// in this form (RFC 6147), so the embedded address decides.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Returns `true` for an address that may belong to the network of this process, or to no host.
///
/// The address of a NAT64 prefix that a network has chosen for itself looks like any other.
pub(super) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_forbidden_v4(address),
        IpAddr::V6(address) => is_forbidden_v6(address),
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    IPV4_NETWORKS
        .iter()
        .any(|(network, prefix)| (address.to_bits() ^ network.to_bits()) >> (32 - prefix) == 0)
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    // A socket that connects to an IPv4-mapped address connects to the IPv4 address.
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_forbidden_v4(mapped);
    }
    if is_inside(address, NAT64) {
        let [.., a, b, c, d] = address.octets();
        return is_forbidden_v4(Ipv4Addr::new(a, b, c, d));
    }
    !is_inside(address, IPV6_GLOBAL)
        || IPV6_NETWORKS
            .iter()
            .any(|network| is_inside(address, *network))
        || is_isatap(address)
}

fn is_inside(address: Ipv6Addr, (network, prefix): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (128 - prefix) == 0
}

/// ISATAP (RFC 5214 §6.1) embeds an IPv4 address of a site, public or not, after a fixed mark.
///
/// All of them are forbidden, since each is the end of a tunnel inside a site.
fn is_isatap(address: Ipv6Addr) -> bool {
    let [.., high, low, _, _] = address.segments();
    // The bit says whether the IPv4 address is unique.
    high & !0x0200 == 0 && low == 0x5efe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Each class: its first and last address. The addresses beside it are checked too.
    const CLASSES: &[(&str, &str)] = &[
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "255.255.255.255"),
        // All below 2000::/3, except what embeds a public IPv4 address.
        ("::", "::ffff:0.255.255.255"),
        ("::ffff:127.0.0.0", "::ffff:127.255.255.255"),
        ("::ffff:224.0.0.0", "64:ff9b::0.255.255.255"),
        ("64:ff9b::10.0.0.0", "64:ff9b::10.255.255.255"),
        ("64:ff9b::169.254.0.0", "64:ff9b::169.254.255.255"),
        (
            "64:ff9b::224.0.0.0",
            "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2a00::5efe:0:0", "2a00::5efe:ffff:ffff"),
        ("2a00::200:5efe:0:0", "2a00::200:5efe:ffff:ffff"),
    ];

    /// Returns the addresses before and after a class, if the class does not end the space.
    fn neighbors(first: IpAddr, last: IpAddr) -> [Option<IpAddr>; 2] {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => [
                first.to_bits().checked_sub(1),
                last.to_bits().checked_add(1),
            ]
            .map(|bits| Some(Ipv4Addr::from_bits(bits?).into())),
            (IpAddr::V6(first), IpAddr::V6(last)) => [
                first.to_bits().checked_sub(1),
                last.to_bits().checked_add(1),
            ]
            .map(|bits| Some(Ipv6Addr::from_bits(bits?).into())),
            _ => panic!("a class of two families"),
        }
    }

    #[test]
    fn classes_are_forbidden_to_their_edges() {
        let mut allowed = 0;
        for (first, last) in CLASSES.iter().map(|&(a, b)| (address(a), address(b))) {
            assert!(is_forbidden(first), "{first}");
            assert!(is_forbidden(last), "{last}");
            for neighbor in neighbors(first, last).into_iter().flatten() {
                assert!(!is_forbidden(neighbor), "{neighbor}");
                allowed += 1;
            }
        }
        assert_eq!(allowed, 2 * CLASSES.len() - 4, "four edges end a space");
    }

    #[test]
    fn well_known_internal_addresses_are_forbidden() {
        for text in [
            "127.0.0.1",
            "169.254.169.254",          // metadata of most clouds
            "fd00:ec2::254",            // metadata of AWS
            "100.100.100.200",          // metadata of Alibaba
            "192.0.0.192",              // metadata of Oracle
            "255.255.255.255",          // broadcast
            "::1",                      // loopback
            "::127.0.0.1",              // IPv4-compatible
            "::ffff:169.254.169.254",   // IPv4-mapped
            "::ffff:0:127.0.0.1",       // IPv4-translated
            "64:ff9b::169.254.169.254", // NAT64
            "64:ff9b:1::127.0.0.1",     // NAT64 of one network
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",                        // 6to4 of 127.0.0.1
            "2001:0:7f00:1::",                      // Teredo
            "2001:0:4136:e378:8000:63bf:80ff:fffe", // Teredo of 127.0.0.1
            "2a00:1::5efe:10.0.0.1",                // ISATAP
            "100::1",                               // discard
            "fc00::1",                              // unique local
            "fe80::1",                              // link-local
            "fec0::1",                              // site-local
            "ff02::1",                              // multicast
            "5f00::1",                              // segment routing
        ] {
            assert!(is_forbidden(address(text)), "{text}");
        }
    }

    #[test]
    fn public_addresses_are_allowed_in_each_form() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "172.15.0.1",
            "192.1.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2606:4700:4700::1111",
            "2a00:1450:4001:82f::200e",
        ] {
            assert!(!is_forbidden(address(text)), "{text}");
        }
    }
}
