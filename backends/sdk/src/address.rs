//! Text forms and conversions of the contract's addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::{Endpoint, IpAddress, IpFamily, Prefix};

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
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for IpAddress {
    fn from(address: Ipv4Addr) -> Self {
        Self::Ipv4(address.octets().into())
    }
}

impl From<Ipv6Addr> for IpAddress {
    fn from(address: Ipv6Addr) -> Self {
        Self::Ipv6(address.segments().into())
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

impl PartialEq<IpAddr> for IpAddress {
    fn eq(&self, other: &IpAddr) -> bool {
        IpAddr::from(*self) == *other
    }
}

impl FromStr for IpAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from).map_err(|_| ParseAddressError::new(text, "an IP address"))
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

impl Prefix {
    /// The family of its address.
    #[must_use]
    pub fn family(self) -> IpFamily {
        self.address.family()
    }

    /// Whether `address` is one of this network. A length that its family does not have holds nothing.
    #[must_use]
    pub fn contains(self, address: impl Into<IpAddress>) -> bool {
        let address = address.into();
        match self.family().bits().checked_sub(self.length) {
            // All bits shifted out: everything of the family.
            Some(rest) if self.family() == address.family() => {
                bits(self.address).checked_shr(rest.into()).unwrap_or(0)
                    == bits(address).checked_shr(rest.into()).unwrap_or(0)
            }
            _ => false,
        }
    }

    /// The same with all bits of the host zero, as the host wants networks.
    #[must_use]
    pub fn network(self) -> Self {
        let rest = u32::from(self.family().bits().saturating_sub(self.length));
        let kept = bits(self.address) & u128::MAX.checked_shl(rest).unwrap_or(0);
        let address = match self.address {
            // The upper bits were never set.
            IpAddress::Ipv4(_) => Ipv4Addr::from(kept as u32).into(),
            IpAddress::Ipv6(_) => Ipv6Addr::from(kept).into(),
        };
        Self { address, ..self }
    }
}

fn bits(address: IpAddress) -> u128 {
    match IpAddr::from(address) {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            let (address, digits) = (address.parse::<IpAddress>().ok()?, length.bytes().all(|c| c.is_ascii_digit()));
            let length = length.parse().ok().filter(|length| digits && *length <= address.family().bits())?;
            Some(Self { address, length })
        };
        parse().ok_or_else(|| ParseAddressError::new(text, "an address, a slash and a prefix length"))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip().into(), port: address.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address.into(), endpoint.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SocketAddr::from(*self), f)
    }
}

/// Text that is not the address or network it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseAddressError {
    text: String,
    wanted: &'static str,
}

impl ParseAddressError {
    fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.chars().take(60).collect(), wanted }
    }
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, self.wanted)
    }
}

impl std::error::Error for ParseAddressError {}

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
    fn networks_know_what_is_in_them() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let address = |text: &str| text.parse::<IpAddress>().unwrap();
        for (network, inside, outside) in [
            ("10.244.1.0/24", "10.244.1.255", "10.244.2.0"),
            ("10.244.1.0/32", "10.244.1.0", "10.244.1.1"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("fd00:1::/64", "fd00:1::ffff:0:0:0", "fd00:1:0:1::"),
            ("::/0", "ffff::", "0.0.0.0"),
        ] {
            assert!(prefix(network).contains(address(inside)), "{network} {inside}");
            assert!(!prefix(network).contains(address(outside)), "{network} {outside}");
        }
        assert!(!Prefix { length: 33, ..prefix("10.0.0.0/8") }.contains(address("10.0.0.0")));
        for (text, network) in [("10.244.1.7/24", "10.244.1.0/24"), ("10.1.1.1/0", "0.0.0.0/0"), ("::1/0", "::/0")] {
            assert_eq!(prefix(text).network(), prefix(network));
        }
        assert_eq!(prefix("fd00::1:2/112").network().to_string(), "fd00::1:0/112");
        assert_eq!(prefix("fd00::1/128").network().to_string(), "fd00::1/128");
    }

    #[test]
    fn text_that_is_none_is_named() {
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "/8", "::/129", "10.0.0/8"] {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is not an address, a slash and a prefix length"));
        }
        assert_eq!("x".parse::<IpAddress>().unwrap_err().to_string(), "\"x\" is not an IP address");
    }

    #[test]
    fn endpoints_there_and_back() {
        for text in ["192.0.2.1:51820", "[fd00::1]:8472"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Endpoint::from(address)), address);
            assert_eq!(Endpoint::from(address).to_string(), text);
        }
    }

    #[test]
    fn a_host_is_a_prefix_of_all_bits() {
        assert_eq!(Prefix::host(IpAddr::from([10, 0, 0, 1])).to_string(), "10.0.0.1/32");
        assert_eq!(Prefix::host(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])).to_string(), "fd00::1/128");
    }
}
