//! MAC addresses.

use std::fmt;
use std::str::FromStr;

/// A 48-bit link-layer address, written `0e:11:22:33:44:55`. Converts to and from the contract's tuple.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// An address of one station: neither multicast nor all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// Chosen by software, not by a card's maker. The host wants this of the links a backend makes.
    #[must_use]
    pub fn is_locally_administered(self) -> bool {
        self.0[0] & 2 != 0
    }
}

/// A MAC address for a link of this node: the same for ever, different for each label and each node.
///
/// `seed` is [`Node::seed`](crate::Node); `label` is mostly the link's name.
#[must_use]
pub fn mac_from_seed(seed: &[u8], label: &str) -> Mac {
    // FNV-1a, then the last step of MurmurHash3 so that every bit of the input reaches every bit of the output. Written
    // out because the result must never change, which the standard library promises of no hash of its own.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.iter().chain(label.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    let [_, _, a, b, c, d, e, f] = hash.to_be_bytes();
    Mac([a & !1 | 2, b, c, d, e, f])
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

type Tuple = (u8, u8, u8, u8, u8, u8);

impl From<Tuple> for Mac {
    fn from((a, b, c, d, e, f): Tuple) -> Self {
        Self([a, b, c, d, e, f])
    }
}

impl From<Mac> for Tuple {
    fn from(Mac([a, b, c, d, e, f]): Mac) -> Self {
        (a, b, c, d, e, f)
    }
}

/// Text that is not six pairs of hexadecimal digits with colons between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseMacError(String);

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a MAC address: six pairs of hexadecimal digits joined by colons are", self.0)
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseMacError(text.chars().take(40).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn text_round_trips() {
        assert_eq!("0E:11:22:33:44:fF".parse::<Mac>().unwrap().to_string(), "0e:11:22:33:44:ff");
        for text in ["", "0e:11:22:33:44", "0e:11:22:33:44:55:66", "+e:11:22:33:44:55", "0e-11-22-33-44-55", "é:"] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn seeds_and_labels_make_different_usable_addresses() {
        let mut seen = HashSet::new();
        for node in 0..200_u8 {
            for label in ["flannel.1", "flannel-v6.1", "flannel.2", ""] {
                let mac = mac_from_seed(&[node; 32], label);
                assert!(mac.is_unicast() && mac.is_locally_administered(), "{mac}");
                assert!(seen.insert(mac), "{mac} twice");
            }
        }
    }

    #[test]
    fn addresses_never_change_between_releases() {
        let seed: Vec<u8> = (0..32).collect();
        assert_eq!(mac_from_seed(&seed, "flannel.1").to_string(), "be:78:00:61:33:9e");
    }
}
