//! Values out of raw bytes: any of the interesting ones, or any at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use twill_model::Mac;

/// Addresses with a meaning for the node and the peer of these tests, and some with a meaning for everybody.
const ADDRESSES: [&str; 16] = [
    "0.0.0.0",
    "10.244.0.0",
    "10.244.1.0",
    "10.244.2.0",
    "10.244.2.7",
    "192.0.2.1",
    "192.0.2.2",
    "255.255.255.255",
    "::",
    "fd00:10::",
    "fd00:10:0:1::",
    "fd00:10:0:2::",
    "fd00:10:0:2::7",
    "2001:db8::1",
    "2001:db8::2",
    "ff02::1",
];

/// What is left of an input. At its end, everything is zero.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    pub(crate) fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// One of a list.
    pub(crate) fn pick<'b, T>(&mut self, list: &'b [T]) -> &'b T {
        &list[usize::from(self.byte()) % list.len()]
    }

    /// None, or what `make` makes.
    pub(crate) fn maybe<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// So many as a byte says, but not more than there is input for.
    pub(crate) fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let wanted = self.byte();
        let mut made = Vec::new();
        while made.len() < usize::from(wanted) && !self.is_empty() {
            made.push(make(self));
        }
        made
    }

    pub(crate) fn address(&mut self) -> IpAddr {
        match self.byte() {
            0 => Ipv4Addr::from(self.array()).into(),
            1 => Ipv6Addr::from(self.array::<16>()).into(),
            n => ADDRESSES[usize::from(n) % ADDRESSES.len()].parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }

    pub(crate) fn network(&mut self) -> IpNet {
        let address = self.address();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = *self.pick(&[0, 8, 16, 24, 25, 32, 32, 48, 63, 64, 65, 128]);
        let exact = IpNet::new_assert(address, length.min(most));
        if self.flag() { exact } else { exact.trunc() }
    }

    pub(crate) fn mac(&mut self) -> Mac {
        match self.byte() {
            0 => Mac(self.array()),
            1 => Mac([0; 6]),
            2 => Mac([0xff; 6]),
            n => Mac([2, 0, 0, 0, 0, n % 4]),
        }
    }
}
