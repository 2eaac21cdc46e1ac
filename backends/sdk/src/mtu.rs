//! How much of a packet is left for pods.

use crate::IpFamily;

impl IpFamily {
    /// The smallest MTU that a link may have and carry the family (RFC 791 and RFC 8200): 576 or 1280 bytes.
    #[must_use]
    pub fn min_mtu(self) -> u32 {
        match self {
            Self::Ipv4 => 576,
            Self::Ipv6 => 1280,
        }
    }

    /// Bytes of its header without options: 20 or 40.
    #[must_use]
    pub fn header(self) -> u32 {
        match self {
            Self::Ipv4 => 20,
            Self::Ipv6 => 40,
        }
    }
}

/// What a packet is wrapped in on its way between two nodes.
///
/// ```
/// # use twill_backend::{Encapsulation, IpFamily};
/// assert_eq!(Encapsulation::Vxlan.inner_mtu(1500, IpFamily::Ipv4), 1450);
/// assert_eq!(Encapsulation::Vxlan.inner_mtu(1500, IpFamily::Ipv6), 1430);
/// assert_eq!(Encapsulation::Ip.inner_mtu(1500, IpFamily::Ipv4), 1480);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// An Ethernet frame in UDP with a vxlan header.
    Vxlan,
    /// An Ethernet frame in UDP with a geneve header without options.
    Geneve,
    /// A packet in a packet: ipip, sit and, without an encapsulation limit, ip6tnl.
    Ip,
    /// A packet with a GRE header, which is longer with a key.
    Gre {
        /// Whether the tunnel has one.
        key: bool,
    },
    /// A packet encrypted in UDP.
    Wireguard,
}

impl Encapsulation {
    /// Bytes that it puts around a packet when nodes send to each other over `outer`.
    #[must_use]
    pub fn overhead(self, outer: IpFamily) -> u32 {
        const ETHERNET: u32 = 14;
        const UDP: u32 = 8;
        outer.header()
            + match self {
                // Both headers have 8 bytes.
                Self::Vxlan | Self::Geneve => UDP + 8 + ETHERNET,
                Self::Ip => 0,
                Self::Gre { key } => 4 + if key { 4 } else { 0 },
                // A header of 16 bytes and a tag of 16.
                Self::Wireguard => UDP + 32,
            }
    }

    /// The MTU of a tunnel whose outer packets may have `outer_mtu` bytes; 0 if not even the headers fit.
    #[must_use]
    pub fn inner_mtu(self, outer_mtu: u32, outer: IpFamily) -> u32 {
        outer_mtu.saturating_sub(self.overhead(outer))
    }

    /// The smallest outer MTU with which a tunnel over `outer` carries packets of that same family.
    #[must_use]
    pub fn min_outer_mtu(self, outer: IpFamily) -> u32 {
        outer.min_mtu() + self.overhead(outer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_link_shows_for_each_kind_over_1500_bytes() {
        use Encapsulation::{Geneve, Gre, Ip, Vxlan, Wireguard};
        for (encapsulation, v4, v6) in [
            (Vxlan, 1450, 1430),
            (Geneve, 1450, 1430),
            (Ip, 1480, 1460),
            (Gre { key: false }, 1476, 1456),
            (Gre { key: true }, 1472, 1452),
            (Wireguard, 1440, 1420),
        ] {
            let mtu = |outer| encapsulation.inner_mtu(1500, outer);
            assert_eq!((mtu(IpFamily::Ipv4), mtu(IpFamily::Ipv6)), (v4, v6), "{encapsulation:?}");
        }
        assert_eq!(Vxlan.inner_mtu(49, IpFamily::Ipv4), 0);
        assert_eq!(Vxlan.min_outer_mtu(IpFamily::Ipv4), 626);
        assert_eq!(Vxlan.min_outer_mtu(IpFamily::Ipv6), 1350);
    }
}
