//! Records at rest: all of one in a single small piece of memory.
//!
//! The daemon keeps some facts of every node for as long as it runs and looks at one of them when it changes. As a tree of
//! strings and maps, each of them costs several times what it says; with thousands of nodes that is most of the memory.
//! So it is kept as bytes, and read again when it is needed. The bytes never leave the process: the form has no version.
//! Equal records have equal bytes.

mod shelf;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use twill_model::{Device, Family, Intent, Mac, PublicKey, Route, TunnelKey};

pub use shelf::Shelf;

/// A `T` as bytes. Clones share them.
pub struct Packed<T> {
    bytes: Arc<[u8]>,
    of: PhantomData<fn() -> T>,
}

/// Something that can be written as bytes and read again.
pub trait Pack: Sized {
    /// Appends it.
    fn pack(&self, bytes: &mut Vec<u8>);

    /// Takes it from the front; none if it is not there, which does not happen to what [`pack`](Self::pack) wrote.
    fn unpack(bytes: &mut &[u8]) -> Option<Self>;
}

impl<T: Pack> Packed<T> {
    /// Packs a value.
    #[must_use]
    pub fn new(value: &T) -> Self {
        let mut bytes = Vec::with_capacity(256);
        value.pack(&mut bytes);
        Self { bytes: bytes.into(), of: PhantomData }
    }

    /// The value. Always there: nobody but [`new`](Self::new) makes the bytes.
    #[must_use]
    pub fn get(&self) -> Option<T> {
        T::unpack(&mut &*self.bytes)
    }

    /// The bytes: equal if and only if the values are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first field of the value, of this type.
    #[must_use]
    pub fn first<F: Pack>(&self) -> Option<F> {
        F::unpack(&mut &*self.bytes)
    }
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), of: PhantomData }
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Packed<T> {}

impl<T: Pack + fmt::Debug> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Makes a struct packable field by field, in the order given.
macro_rules! pack_fields {
    ($kind:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::packed::Pack for $kind {
            fn pack(&self, bytes: &mut Vec<u8>) {
                $($crate::packed::Pack::pack(&self.$field, bytes);)+
            }

            fn unpack(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::packed::Pack::unpack(bytes)?),+ })
            }
        }
    };
}
pub(crate) use pack_fields;

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    take(bytes, N)?.try_into().ok()
}

/// Seven bits a byte, the lowest first.
impl Pack for u64 {
    fn pack(&self, bytes: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            bytes.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        bytes.push(rest.to_le_bytes()[0]);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let mut number = 0;
        for shift in (0..Self::BITS).step_by(7) {
            let [byte] = array(bytes)?;
            number |= Self::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// Smaller numbers as larger ones.
macro_rules! pack_number {
    ($($kind:ty),+) => {$(
        impl Pack for $kind {
            fn pack(&self, bytes: &mut Vec<u8>) {
                (*self as u64).pack(bytes);
            }

            fn unpack(bytes: &mut &[u8]) -> Option<Self> {
                u64::unpack(bytes)?.try_into().ok()
            }
        }
    )+};
}
pack_number!(u8, u16, u32, usize);

impl Pack for bool {
    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        u8::unpack(bytes).map(|byte| byte != 0)
    }
}

impl Pack for String {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.len().pack(bytes);
        bytes.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let length = usize::unpack(bytes)?;
        std::str::from_utf8(take(bytes, length)?).ok().map(str::to_owned)
    }
}

impl Pack for Arc<str> {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.len().pack(bytes);
        bytes.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        String::unpack(bytes).map(Into::into)
    }
}

impl<T: Pack> Pack for Option<T> {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.is_some().pack(bytes);
        self.iter().for_each(|value| value.pack(bytes));
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        if bool::unpack(bytes)? { T::unpack(bytes).map(Some) } else { Some(None) }
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.len().pack(bytes);
        self.iter().for_each(|value| value.pack(bytes));
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        (0..usize::unpack(bytes)?).map(|_| T::unpack(bytes)).collect()
    }
}

impl<K: Pack + Ord, V: Pack> Pack for BTreeMap<K, V> {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.len().pack(bytes);
        for (key, value) in self {
            key.pack(bytes);
            value.pack(bytes);
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        (0..usize::unpack(bytes)?).map(|_| Pack::unpack(bytes)).collect()
    }
}

impl<A: Pack, B: Pack> Pack for (A, B) {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.0.pack(bytes);
        self.1.pack(bytes);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::unpack(bytes)?, B::unpack(bytes)?))
    }
}

impl Pack for Family {
    fn pack(&self, bytes: &mut Vec<u8>) {
        (*self == Self::V6).pack(bytes);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        bool::unpack(bytes).map(|is_v6| if is_v6 { Self::V6 } else { Self::V4 })
    }
}

impl Pack for IpAddr {
    fn pack(&self, bytes: &mut Vec<u8>) {
        Family::of(self).pack(bytes);
        match self {
            Self::V4(v4) => bytes.extend(v4.octets()),
            Self::V6(v6) => bytes.extend(v6.octets()),
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some(match Family::unpack(bytes)? {
            Family::V4 => Ipv4Addr::from(array::<4>(bytes)?).into(),
            Family::V6 => Ipv6Addr::from(array::<16>(bytes)?).into(),
        })
    }
}

impl Pack for IpNet {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.addr().pack(bytes);
        self.prefix_len().pack(bytes);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Self::new(IpAddr::unpack(bytes)?, u8::unpack(bytes)?).ok()
    }
}

impl Pack for SocketAddr {
    fn pack(&self, bytes: &mut Vec<u8>) {
        self.ip().pack(bytes);
        self.port().pack(bytes);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self::new(IpAddr::unpack(bytes)?, u16::unpack(bytes)?))
    }
}

impl Pack for Mac {
    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        array(bytes).map(Self)
    }
}

impl Pack for PublicKey {
    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        array(bytes).map(Self)
    }
}

impl Pack for Device {
    fn pack(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Link(name) => name.pack(bytes),
            // No link has this name.
            Self::Uplink => 0_u8.pack(bytes),
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        String::unpack(bytes).map(|name| if name.is_empty() { Self::Uplink } else { Self::Link(name) })
    }
}

pack_fields!(TunnelKey { id, remote });
pack_fields!(Route { destination, device, gateway, on_link, source, mtu, metric, encap });

impl Pack for Intent {
    fn pack(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Route(route) => {
                bytes.push(0);
                route.pack(bytes);
            }
            Self::Neighbor { link, address, mac } => {
                bytes.push(1);
                link.pack(bytes);
                address.pack(bytes);
                mac.pack(bytes);
            }
            Self::Forwarding { link, mac, remote } => {
                bytes.push(2);
                link.pack(bytes);
                mac.pack(bytes);
                remote.pack(bytes);
            }
            Self::WireguardPeer { link, public_key, endpoint, allowed, keepalive } => {
                bytes.push(3);
                link.pack(bytes);
                public_key.pack(bytes);
                endpoint.pack(bytes);
                allowed.pack(bytes);
                keepalive.pack(bytes);
            }
            Self::Unsupported(feature) => {
                bytes.push(4);
                feature.pack(bytes);
            }
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some(match u8::unpack(bytes)? {
            0 => Self::Route(Pack::unpack(bytes)?),
            1 => {
                Self::Neighbor { link: Pack::unpack(bytes)?, address: Pack::unpack(bytes)?, mac: Pack::unpack(bytes)? }
            }
            2 => {
                Self::Forwarding { link: Pack::unpack(bytes)?, mac: Pack::unpack(bytes)?, remote: Pack::unpack(bytes)? }
            }
            3 => Self::WireguardPeer {
                link: Pack::unpack(bytes)?,
                public_key: Pack::unpack(bytes)?,
                endpoint: Pack::unpack(bytes)?,
                allowed: Pack::unpack(bytes)?,
                keepalive: Pack::unpack(bytes)?,
            },
            4 => Self::Unsupported(Pack::unpack(bytes)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6)]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=128)
            .prop_map(|(address, length)| IpNet::new(address, length.min(Family::of(&address).bits())).unwrap())
    }

    fn mac() -> impl Strategy<Value = Mac> {
        any::<[u8; 6]>().prop_map(Mac)
    }

    fn route() -> impl Strategy<Value = Intent> {
        let device = prop_oneof![Just(Device::Uplink), "[a-z.0-9]{1,15}".prop_map(Device::Link)];
        let tunnel = (any::<u64>(), address()).prop_map(|(id, remote)| TunnelKey { id, remote });
        let ways = (device, proptest::option::of(address()), any::<bool>(), proptest::option::of(tunnel));
        (net(), ways, proptest::option::of(address()), any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
            |(destination, (device, gateway, on_link, encap), source, mtu, metric)| {
                Intent::Route(Route { destination, device, gateway, on_link, source, mtu, metric, encap })
            },
        )
    }

    fn intent() -> impl Strategy<Value = Intent> {
        let link = || "[a-z.0-9]{1,15}";
        let endpoint = proptest::option::of((address(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port)));
        let allowed = proptest::collection::vec(net(), 0..4);
        prop_oneof![
            route(),
            (link(), address(), mac()).prop_map(|(link, address, mac)| Intent::Neighbor { link, address, mac }),
            (link(), mac(), address()).prop_map(|(link, mac, remote)| Intent::Forwarding { link, mac, remote }),
            (link(), any::<[u8; 32]>(), endpoint, allowed, any::<Option<u16>>()).prop_map(
                |(link, key, endpoint, allowed, keepalive)| Intent::WireguardPeer {
                    link,
                    public_key: PublicKey(key),
                    endpoint,
                    allowed,
                    keepalive
                }
            ),
            "\\PC{0,20}".prop_map(Intent::Unsupported),
        ]
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(intents in proptest::collection::vec(intent(), 0..6), other in intent()) {
            let packed = Packed::new(&intents);
            prop_assert_eq!(packed.get(), Some(intents.clone()));
            let others = vec![other];
            prop_assert_eq!(packed == Packed::new(&others), intents == others);
        }

        #[test]
        fn foreign_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Vec::<Intent>::unpack(&mut &*bytes);
            let _ = BTreeMap::<Family, String>::unpack(&mut &*bytes);
        }
    }

    #[test]
    fn a_plan_for_one_peer_is_small() {
        let link = || "flannel.1".to_owned();
        let (subnet, public) = ("10.244.2.0/24".parse::<IpNet>().unwrap(), "192.0.2.2".parse().unwrap());
        let mac = Mac([2; 6]);
        let intents = vec![
            Intent::Neighbor { link: link(), address: subnet.addr(), mac },
            Intent::Forwarding { link: link(), mac, remote: public },
            Intent::Route(Route {
                destination: subnet,
                device: Device::Link(link()),
                gateway: Some(subnet.addr()),
                on_link: true,
                source: None,
                mtu: None,
                metric: None,
                encap: None,
            }),
        ];
        let packed = Packed::new(&intents);
        assert!(packed.bytes.len() <= 80, "{}", packed.bytes.len());
    }
}
