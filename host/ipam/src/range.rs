//! From which addresses a network takes: ranges, and sets of ranges, by host-local's rules and in its words.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A subnet and the part of it that addresses are given from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

/// The ranges of one family that one address of each attachment is taken from; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

/// Why a range or a set cannot be given from. The texts begin as host-local's do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the blanks of the message above them")]
pub enum RangeError {
    /// Less than a network address, a gateway, an address to give and a broadcast address.
    #[error("Network {subnet} too small to allocate from")]
    TooSmall { subnet: IpNet },
    /// An IPv4 address in the clothes of IPv6, with a mask of IPv6.
    #[error("IPNet IP and Mask version mismatch: {subnet} is an IPv4-mapped network, write it as IPv4")]
    Mapped { subnet: IpNet },
    /// Not the address of a network.
    #[error(
        "Network has host bits set. For a subnet mask of length {} the network address is {}",
        .subnet.prefix_len(), .subnet.network()
    )]
    HostBits { subnet: IpNet },
    /// The first address is elsewhere, or after the last.
    #[error("RangeStart {start} not in network {subnet}")]
    Start { start: IpAddr, subnet: IpNet },
    /// The last address is elsewhere.
    #[error("RangeEnd {end} not in network {subnet}")]
    End { end: IpAddr, subnet: IpNet },
    /// A set without ranges.
    #[error("empty range set")]
    Empty,
    /// A set has one address to give, which is of one family.
    #[error("mixed address families")]
    MixedFamilies,
    /// Two ranges of a set.
    #[error("subnets {one} and {other} overlap")]
    Overlap { one: Box<Range>, other: Box<Range> },
    /// Two sets of a network.
    #[error("range set {one} overlaps with {other}")]
    SetsOverlap { one: usize, other: usize },
}

impl Range {
    /// The range of `subnet`, from its first address to its last but the broadcast address, with the first as gateway,
    /// unless it is said otherwise. The gateway may be anywhere; it is not given.
    pub fn new(
        subnet: IpNet,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Range, RangeError> {
        if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
            return Err(RangeError::TooSmall { subnet });
        }
        if subnet.addr().to_canonical() != subnet.addr() {
            return Err(RangeError::Mapped { subnet });
        }
        if subnet.addr() != subnet.network() {
            return Err(RangeError::HostBits { subnet });
        }
        let (start, end) = (start.map(|start| start.to_canonical()), end.map(|end| end.to_canonical()));
        if let Some(start) = start
            && (!subnet.contains(&start) || end.is_some_and(|end| end < start))
        {
            return Err(RangeError::Start { start, subnet });
        }
        let first = address(number(subnet.network()) + 1, subnet.network());
        let last = number(subnet.broadcast()) - u128::from(subnet.addr().is_ipv4());
        let range = Range {
            subnet,
            start: start.unwrap_or(first),
            end: end.unwrap_or(address(last, subnet.network())),
            gateway: gateway.map_or(first, |gateway| gateway.to_canonical()),
        };
        if !subnet.contains(&range.end) || range.end < range.start {
            return Err(RangeError::End { end: range.end, subnet });
        }
        Ok(range)
    }

    /// The network that the addresses are in.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The first address of the range.
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address of the range.
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// The address that is not given, and that what takes addresses from this range routes to.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether an address lies in the range, its gateway too.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && self.start <= address && address <= self.end
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    /// How many addresses can be given; at most what a `u128` holds.
    pub(crate) fn size(&self) -> u128 {
        let all = (number(self.end) - number(self.start)).saturating_add(1);
        all - u128::from(self.contains(self.gateway))
    }
}

impl RangeSet {
    /// A set of ranges of one family that have no address in common.
    pub fn new(ranges: Vec<Range>) -> Result<RangeSet, RangeError> {
        let first = ranges.first().ok_or(RangeError::Empty)?;
        if ranges.iter().any(|range| range.start.is_ipv4() != first.start.is_ipv4()) {
            return Err(RangeError::MixedFamilies);
        }
        for (index, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges[index + 1..].iter().find(|other| one.overlaps(other)) {
                return Err(RangeError::Overlap { one: Box::new(one.clone()), other: Box::new(other.clone()) });
            }
        }
        Ok(RangeSet { ranges })
    }

    /// The ranges in the order in which they are used.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Whether the set gives IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.ranges[0].start.is_ipv4()
    }

    /// The range that an address lies in.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(address))
    }

    /// Whether an address lies in one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.range_of(address).is_some()
    }
}

/// Checks that no address lies in two of a network's sets.
pub fn check_overlaps(sets: &[RangeSet]) -> Result<(), RangeError> {
    for (one, set) in sets.iter().enumerate() {
        for (other, next) in sets.iter().enumerate().skip(one + 1) {
            if set.ranges.iter().any(|range| next.ranges.iter().any(|next| range.overlaps(next))) {
                return Err(RangeError::SetsOverlap { one, other });
            }
        }
    }
    Ok(())
}

/// An address as a number, for the step to the next one.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with this number, of the family of `like`.
pub(crate) fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        #[allow(clippy::cast_possible_truncation, reason = "numbers of IPv4 addresses are made from IPv4 addresses")]
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range, RangeError> {
        let some = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Range::new(subnet.parse().unwrap(), some(start), some(end), some(gateway))
    }

    fn set(subnets: &[&str]) -> Result<RangeSet, RangeError> {
        RangeSet::new(subnets.iter().map(|subnet| range(subnet, "", "", "").unwrap()).collect())
    }

    #[test]
    fn a_subnet_alone_gives_all_but_network_broadcast_and_gateway() {
        for (subnet, start, end, gateway, size) in [
            ("10.1.17.0/24", "10.1.17.1", "10.1.17.254", "10.1.17.1", 253),
            ("10.0.0.0/30", "10.0.0.1", "10.0.0.2", "10.0.0.1", 1),
            ("fd00::/126", "fd00::1", "fd00::3", "fd00::1", 2),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1", (1 << 64) - 2),
            ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1", u128::MAX - 1),
        ] {
            let range = range(subnet, "", "", "").unwrap();
            let found = (range.start().to_string(), range.end().to_string(), range.gateway().to_string(), range.size());
            assert_eq!(found, (start.into(), end.into(), gateway.into(), size), "{subnet}");
        }
    }

    #[test]
    fn what_is_said_counts_even_network_and_broadcast_address() {
        let range = range("10.0.0.0/24", "10.0.0.0", "10.0.0.255", "192.168.0.1").unwrap();
        assert_eq!((range.to_string().as_str(), range.size()), ("10.0.0.0-10.0.0.255", 256));
        assert_eq!(range.gateway().to_string(), "192.168.0.1");
    }

    #[test]
    fn ipv4_in_the_clothes_of_ipv6_is_ipv4() {
        let range = range("10.0.0.0/24", "::ffff:10.0.0.5", "::ffff:10.0.0.9", "::ffff:10.0.0.2").unwrap();
        assert_eq!(
            (range.to_string().as_str(), range.gateway().to_string().as_str()),
            ("10.0.0.5-10.0.0.9", "10.0.0.2")
        );
    }

    #[test]
    fn each_fault_is_said_in_host_locals_words() {
        for ((subnet, start, end), message) in [
            (("10.0.0.0/31", "", ""), "Network 10.0.0.0/31 too small to allocate from"),
            (("10.0.0.0/32", "", ""), "Network 10.0.0.0/32 too small to allocate from"),
            (("fd00::/127", "", ""), "Network fd00::/127 too small to allocate from"),
            (
                ("10.0.0.5/24", "", ""),
                "Network has host bits set. For a subnet mask of length 24 the network address is 10.0.0.0",
            ),
            (("10.0.0.0/24", "10.0.1.1", ""), "RangeStart 10.0.1.1 not in network 10.0.0.0/24"),
            (("10.0.0.0/24", "", "10.0.1.1"), "RangeEnd 10.0.1.1 not in network 10.0.0.0/24"),
            (("10.0.0.0/24", "10.0.0.9", "10.0.0.8"), "RangeStart 10.0.0.9 not in network 10.0.0.0/24"),
            (("10.0.0.0/24", "fd00::1", ""), "RangeStart fd00::1 not in network 10.0.0.0/24"),
            (("10.0.0.0/24", "", "fd00::1"), "RangeEnd fd00::1 not in network 10.0.0.0/24"),
            (("10.0.0.0/24", "", "10.0.0.0"), "RangeEnd 10.0.0.0 not in network 10.0.0.0/24"),
        ] {
            assert_eq!(range(subnet, start, end, "").unwrap_err().to_string(), message);
        }
        let mapped = range("::ffff:10.0.0.0/120", "", "", "").unwrap_err().to_string();
        assert!(mapped.starts_with("IPNet IP and Mask version mismatch"), "{mapped}");
    }

    #[test]
    fn a_set_is_of_one_family_without_overlaps() {
        assert_eq!(
            set(&["10.0.0.0/24", "10.0.1.0/24"]).unwrap().to_string(),
            "10.0.0.1-10.0.0.254,10.0.1.1-10.0.1.254"
        );
        assert_eq!(RangeSet::new(vec![]).unwrap_err().to_string(), "empty range set");
        assert_eq!(set(&["10.0.0.0/24", "fd00::/64"]).unwrap_err().to_string(), "mixed address families");
        assert_eq!(
            set(&["10.0.0.0/24", "10.0.0.0/16"]).unwrap_err().to_string(),
            "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.255.254 overlap"
        );
    }

    #[test]
    fn parts_of_one_subnet_do_not_overlap() {
        let low = range("10.0.0.0/24", "", "10.0.0.99", "").unwrap();
        let high = range("10.0.0.0/24", "10.0.0.100", "", "").unwrap();
        RangeSet::new(vec![low.clone(), high.clone()]).unwrap();
        check_overlaps(&[RangeSet::new(vec![low]).unwrap(), RangeSet::new(vec![high]).unwrap()]).unwrap();
    }

    #[test]
    fn sets_may_not_overlap_either() {
        let sets = ["10.0.0.0/24", "fd00::/64", "10.0.0.0/16"].map(|subnet| set(&[subnet]).unwrap());
        assert_eq!(check_overlaps(&sets).unwrap_err().to_string(), "range set 0 overlaps with 2");
        check_overlaps(&sets[..2]).unwrap();
    }
}
