//! Addresses and networks in text, read as the reference plugins read them.
//!
//! The crate that we have networks from takes `10.0.0.00/8`, which they refuse: an octet with a leading zero is octal to some.

use std::net::IpAddr;

use ipnet::IpNet;

/// A network, or an address with the length of its prefix.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = Some(length).filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// An address, or an address with a prefix length that is not looked at; IPv4 however it is written.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let address = if text.contains('/') { network(text)?.addr() } else { text.parse().ok()? };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_doubtful_is_refused() {
        for text in ["10.0.0.0/8", "10.1.2.3/08", "fd00::/64", "::/0", "0.0.0.0/32"] {
            assert!(network(text).is_some() && address(text).is_some(), "{text}");
        }
        for text in
            ["", "10.0.0.0", "10.0.0.00/8", "10.0.0.0/+8", "10.0.0.0/33", "10.0.0.0/", "/8", "10.0.0/8", "fd00::/129"]
        {
            assert_eq!(network(text), None, "{text}");
        }
        for text in ["", "010.0.0.1", "10.0.0.1/", "fe80::1%eth0", " 10.0.0.1"] {
            assert_eq!(address(text), None, "{text}");
        }
        assert_eq!(address("::ffff:10.0.0.7/120"), "10.0.0.7".parse().ok());
    }
}
