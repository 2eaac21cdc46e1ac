//! Text forms and conversions of the contract's addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Device, IpAddress, IpFamily, Node, NodeFamily, Prefix, Route};

impl IpFamily {
    /// Bits of an address: 32 or 128, the prefix length of a single host.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl IpAddress {
    /// The family of this address.
    #[must_use]
    pub fn family(self) -> IpFamily {
        match self {
            Self::Ipv4(_) => IpFamily::Ipv4,
            Self::Ipv6(_) => IpFamily::Ipv6,
        }
    }
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::Ipv4(v4.octets().into()),
            IpAddr::V6(v6) => Self::Ipv6(v6.segments().into()),
        }
    }
}

impl From<IpAddress> for IpAddr {
    fn from(address: IpAddress) -> Self {
        match address {
            IpAddress::Ipv4(v4) => Self::V4(Ipv4Addr::from(<[u8; 4]>::from(v4))),
            IpAddress::Ipv6(v6) => Self::V6(Ipv6Addr::from(<[u16; 8]>::from(v6))),
        }
    }
}

impl fmt::Display for IpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

impl Prefix {
    /// The network `address/length`.
    #[must_use]
    pub fn new(address: impl Into<IpAddress>, length: u8) -> Self {
        Self { address: address.into(), length }
    }

    /// `address/32` or `address/128`.
    #[must_use]
    pub fn host(address: impl Into<IpAddress>) -> Self {
        let address = address.into();
        Self { address, length: address.family().bits() }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Route {
    /// The route to `destination` by way of `gateway`; all that is optional is left out.
    #[must_use]
    pub fn via(destination: Prefix, gateway: IpAddress, device: Device) -> Self {
        Self {
            destination,
            device,
            gateway: Some(gateway),
            on_link: false,
            source: None,
            mtu: None,
            metric: None,
            encap: None,
        }
    }

    /// The same with the gateway counted as reachable over the device although no route says so (`onlink` in ip(8)).
    #[must_use]
    pub fn onlink(self) -> Self {
        Self { on_link: true, ..self }
    }
}

impl Node {
    /// What this node is in one family, if that is switched on.
    #[must_use]
    pub fn family(&self, family: IpFamily) -> Option<&NodeFamily> {
        self.families.iter().find(|f| f.family == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_there_and_back() {
        for text in ["10.244.1.0", "fd00::1:2"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(IpAddress::from(address)), address);
            assert_eq!(IpAddress::from(address).to_string(), text);
        }
        assert_eq!(IpAddress::from(IpAddr::from([10, 244, 1, 0])), IpAddress::Ipv4((10, 244, 1, 0)));
    }

    #[test]
    fn a_host_is_a_prefix_of_all_bits() {
        assert_eq!(Prefix::host(IpAddr::from([10, 0, 0, 1])).to_string(), "10.0.0.1/32");
        assert_eq!(Prefix::host(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])).to_string(), "fd00::1/128");
    }
}
