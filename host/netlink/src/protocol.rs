//! Which protocol number a route gets.
//!
//! The kernel finds duplicates of an IPv4 route's next hop in a hash whose key leaves the gateway out. Routes to all peers
//! go through one device, so they share one bucket, and inserting N of them costs N². The protocol number is part of the
//! key: spreading it over a range that nobody else uses ends that, and flannel's own commands still find the routes, since
//! they do not name a protocol. While there are few peers, routes look exactly like flannel's.

use std::net::IpAddr;

use ipnet::IpNet;

/// The protocol of flannel's routes, and of ip(8) by default.
pub const RTPROT_BOOT: u8 = 3;

/// Up to so many routes the kernel's walk costs less than looking unlike flannel.
pub const PLAIN_ROUTES: usize = 256;

/// Unassigned in rtnetlink.h, and outside 186–198, which FRR sweeps at its start.
const RANGES: [std::ops::RangeInclusive<u8>; 2] = [100..=185, 200..=253];

/// The protocol number for a route to `destination` on a node that has `routes_planned` of them in its family.
///
/// It depends on nothing else, so a restarted daemon computes the same one. The number says nothing of what the route
/// means, and comparisons ignore it.
#[must_use]
pub fn protocol_for(destination: &IpNet, routes_planned: usize) -> u8 {
    if routes_planned <= PLAIN_ROUTES {
        return RTPROT_BOOT;
    }
    let numbers: u64 = RANGES.iter().map(|range| range.len() as u64).sum();
    let mut rest = hash(destination) % numbers;
    for range in RANGES {
        let length = range.len() as u64;
        if rest < length {
            // Below 256, since the range's end is.
            return *range.start() + u8::try_from(rest).unwrap_or(0);
        }
        rest -= length;
    }
    RTPROT_BOOT
}

/// Whether a route with this protocol number was made by us: true of the range only, since plain routes look like
/// everybody's.
#[must_use]
pub fn is_ours(protocol: u8) -> bool {
    RANGES.iter().any(|range| range.contains(&protocol))
}

/// FNV-1a with a final mix (so that neighbouring subnets do not make patterns). Never change it: routes of an earlier
/// release would be rewritten for nothing.
fn hash(net: &IpNet) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let start = step(0xcbf2_9ce4_8422_2325, net.prefix_len());
    let hash = match net.network() {
        IpAddr::V4(address) => address.octets().into_iter().fold(start, step),
        IpAddr::V6(address) => address.octets().into_iter().fold(start, step),
    };
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const MANY: usize = PLAIN_ROUTES + 1;

    #[test]
    fn few_routes_look_like_flannels() {
        assert_eq!(protocol_for(&"10.244.1.0/24".parse().unwrap(), 1), RTPROT_BOOT);
        assert_eq!(protocol_for(&"10.244.1.0/24".parse().unwrap(), PLAIN_ROUTES), RTPROT_BOOT);
        assert!(!is_ours(RTPROT_BOOT));
    }

    #[test]
    fn numbers_never_change() {
        let number = |net: &str| protocol_for(&net.parse().unwrap(), MANY);
        assert_eq!([number("10.244.1.0/24"), number("10.244.2.0/24"), number("fd00:10:244:1::/64")], [248, 125, 142]);
    }

    #[test]
    fn numbers_are_in_the_range_and_spread_evenly() {
        let v4 = (0..5000u32).map(|n| format!("10.{}.{}.0/24", 128 + n / 256, n % 256));
        let v6 = (0..5000u32).map(|n| format!("fd00:10:244:{n:x}::/64"));
        for nets in [v4.collect::<Vec<_>>(), v6.collect::<Vec<_>>()] {
            let mut counts: HashMap<u8, usize> = HashMap::new();
            for net in &nets {
                *counts.entry(protocol_for(&net.parse().unwrap(), nets.len())).or_default() += 1;
            }
            assert!(counts.keys().all(|number| is_ours(*number)));
            assert_eq!(counts.len(), 140, "all numbers are used");
            let most = counts.values().max().copied().unwrap_or(0);
            assert!(most <= 2 * 5000 / 140, "{most} of 5000 share a number; 36 is even");
        }
    }

    #[test]
    fn assigned_numbers_are_left_alone() {
        for number in (0..=99).chain(186..=199).chain(254..=255) {
            assert!(!is_ours(number), "{number}");
        }
    }
}
