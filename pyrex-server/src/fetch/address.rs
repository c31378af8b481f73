//! Which addresses are somebody's on the open internet, after IANA's registries of special-purpose addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is public: no loopback, private, link-local, shared, multicast, documentation, translated or reserved one.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    /// Azure's window to the host of a virtual machine, which lies among public addresses.
    const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b) {
        (0 | 10 | 127 | 224..=255, _) => true,
        (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168) | (198, 18..=19) => true,
        (192, 0) => matches!(c, 0 | 2),
        (192, 88) => c == 99,
        (198, 51) => c == 100,
        (203, 0) => c == 113,
        _ => false,
    };
    !is_special && address != WIRE_SERVER
}

/// All that is global lies in `2000::/3`; mapped, compatible and translated IPv4, local and multicast addresses lie outside.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_special = match first {
        // Teredo, ORCHID, benchmarking and other protocols; then documentation.
        0x2001 => second < 0x0200 || second == 0x0db8,
        // Tunnels that carry an IPv4 address.
        0x2002 => true,
        0x3fff => second < 0x1000,
        _ => false,
    };
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(public: bool, addresses: &[&str]) {
        for address in addresses {
            let parsed = address.parse().expect("an address");
            assert_eq!(is_public(parsed), public, "{address}");
        }
    }

    #[test]
    fn public_addresses_are_let_through() {
        check(true, &["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"]);
        check(true, &["192.0.1.1", "198.17.0.1", "198.20.0.1", "223.255.255.255", "168.63.129.17"]);
        check(true, &["2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "3fff:1000::1"]);
    }

    #[test]
    fn special_ipv4_addresses_are_refused() {
        check(false, &["0.0.0.0", "0.1.2.3", "10.0.0.1", "127.0.0.1", "127.255.0.1", "169.254.169.254"]);
        check(false, &["172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"]);
        check(false, &["192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.1.1", "198.51.100.1"]);
        check(
            false,
            &["203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"],
        );
    }

    #[test]
    fn special_ipv6_addresses_are_refused() {
        check(false, &["::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1"]);
        check(
            false,
            &["64:ff9b:1::1", "100::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1"],
        );
        check(
            false,
            &["2001::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1"],
        );
    }
}
