//! A backend whose answers are spelled by its configuration, byte by byte in hexadecimal: every value that the contract has
//! types for, and so everything that a host has to bear. It is asked by the fuzz target `answers`.

use twill_backend::{
    Backend, Device, Encap, Endpoint, Failure, Forwarding, Geneve, Intent, IpAddress, IpFamily, Link, LinkKind,
    Neighbor, Node, NodePlan, NotPlanned, Peer, Prefix, Publication, Route, Seg6, Tunnel, TunnelKey, Verdict, Vxlan,
    WireguardPeer, export_backend,
};

/// The backend: what is left of its configuration.
#[derive(Debug)]
pub struct Arbitrary {
    bytes: Vec<u8>,
}

impl Backend for Arbitrary {
    const NAME: &'static str = "arbitrary";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &[];

    fn new(node: &Node) -> Result<Self, Failure> {
        let digits = node.config.as_bytes().chunks_exact(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or("0"), 16).unwrap_or(0);
        Ok(Self { bytes: digits.map(byte).collect() })
    }

    fn plan_node(&self, _node: &Node) -> Result<NodePlan, Failure> {
        let mut bytes = Bytes(&self.bytes);
        match bytes.byte() {
            0 => Err(Failure::Unsupported(bytes.text())),
            1 => Err(Failure::BadConfig(bytes.text())),
            2 => Err(Failure::Internal(bytes.text())),
            _ => Ok(NodePlan {
                links: bytes.list(Bytes::link),
                intents: bytes.list(Bytes::intent),
                publish: bytes.list(|b| Publication { family: b.family(), data: b.text() }),
                pod_mtu: bytes.number(),
            }),
        }
    }

    fn plan_peer(&self, _node: &Node, _peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        Ok(Vec::new())
    }

    /// As many verdicts as it likes.
    fn plan_peers(&self, _node: &Node, peers: &[Peer]) -> Vec<Verdict> {
        let mut bytes = Bytes(&self.bytes);
        let count = if bytes.byte() == 0 { usize::from(bytes.byte()) } else { peers.len() };
        let verdict = |_| match bytes.byte() % 8 {
            0 => Verdict::Unreachable(bytes.text()),
            1 => Verdict::Incomplete(bytes.text()),
            2 => Verdict::Invalid(bytes.text()),
            _ => Verdict::Plan(bytes.list(Bytes::intent)),
        };
        (0..count).map(verdict).collect()
    }
}

/// What is left. At its end, everything is zero.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn port(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn maybe<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// A length up to 255, and by chance much more.
    fn length(&mut self) -> usize {
        let length = usize::from(self.byte());
        if length == 255 { usize::from(self.byte()) << 9 } else { length }
    }

    fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.length() / 8).map(|_| make(self)).collect()
    }

    fn text(&mut self) -> String {
        let length = self.length();
        let bytes: Vec<u8> = (0..length).map(|_| self.byte()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn family(&mut self) -> IpFamily {
        if self.flag() { IpFamily::Ipv6 } else { IpFamily::Ipv4 }
    }

    fn address(&mut self) -> IpAddress {
        if self.flag() {
            return IpAddress::Ipv6(std::array::from_fn::<u16, 8, _>(|_| self.port()).into());
        }
        // Mostly those of the asking host's peers.
        let [a, b, c, d] = self.array();
        IpAddress::Ipv4(if a < 128 { (10, 244, b % 4, c) } else { (a, b, c, d) })
    }

    fn prefix(&mut self) -> Prefix {
        Prefix { address: self.address(), length: self.byte() }
    }

    fn mac(&mut self) -> (u8, u8, u8, u8, u8, u8) {
        self.array::<6>().into()
    }

    fn name(&mut self) -> String {
        if self.flag() { "flannel.1".to_owned() } else { self.text() }
    }

    fn tunnel(&mut self) -> Tunnel {
        Tunnel {
            local: self.address(),
            remote: self.maybe(Self::address),
            key: self.maybe(Self::number),
            metadata: self.flag(),
        }
    }

    fn kind(&mut self) -> LinkKind {
        match self.byte() % 12 {
            0 => {
                let (vni, port, remote, metadata) =
                    (self.number(), self.port(), self.maybe(Self::address), self.flag());
                LinkKind::Geneve(Geneve { vni, port, remote, metadata })
            }
            1 => LinkKind::Ipip(self.tunnel()),
            2 => LinkKind::Sit(self.tunnel()),
            3 => LinkKind::Ip6tnl(self.tunnel()),
            4 => LinkKind::Gre(self.tunnel()),
            5 => LinkKind::Ip6gre(self.tunnel()),
            6 => LinkKind::Wireguard(self.port()),
            7 => LinkKind::Dummy,
            _ => LinkKind::Vxlan(Vxlan {
                vni: self.number(),
                port: self.port(),
                local: self.address(),
                learning: self.flag(),
                gbp: self.flag(),
                metadata: self.flag(),
            }),
        }
    }

    fn link(&mut self) -> Link {
        Link {
            name: self.name(),
            kind: self.kind(),
            mtu: self.number(),
            mac: self.maybe(Self::mac),
            addresses: self.list(Self::prefix),
        }
    }

    fn encap(&mut self) -> Encap {
        match self.byte() % 3 {
            0 => Encap::Tunnel(TunnelKey { id: u64::from_le_bytes(self.array()), remote: self.address() }),
            1 => {
                let segment = |b: &mut Self| std::array::from_fn::<u16, 8, _>(|_| b.port()).into();
                Encap::Seg6(Seg6 { segments: self.list(segment), inline: self.flag() })
            }
            _ => Encap::Mpls(self.list(Self::number)),
        }
    }

    fn intent(&mut self) -> Intent {
        match self.byte() % 8 {
            0 => Intent::Neighbor(Neighbor { link: self.name(), address: self.address(), mac: self.mac() }),
            1 => Intent::Forwarding(Forwarding { link: self.name(), mac: self.mac(), remote: self.address() }),
            2 => Intent::WireguardPeer(WireguardPeer {
                link: self.name(),
                public_key: self.list(Self::byte),
                endpoint: self.maybe(|b| Endpoint { address: b.address(), port: b.port() }),
                allowed: self.list(Self::prefix),
                keepalive: self.maybe(Self::port),
            }),
            _ => Intent::Route(Route {
                destination: self.prefix(),
                device: if self.flag() { Device::Uplink } else { Device::Link(self.name()) },
                gateway: self.maybe(Self::address),
                on_link: self.flag(),
                source: self.maybe(Self::address),
                mtu: self.maybe(Self::number),
                metric: self.maybe(Self::number),
                encap: self.maybe(Self::encap),
            }),
        }
    }
}

export_backend!(Arbitrary);
