//! Pods of different nodes meet through WireGuard: everything between the nodes is encrypted. The same links, published bytes
//! and options as flannel's wireguard, so that the two can be mixed.
//!
//! The host has the node's key pair and gives its public half; what the pre-shared key (`PSK`) is, nobody here knows. A packet
//! for a pod of a peer follows the one route for the whole cluster into the link; there the peer is found by whose subnet it is.
//! So a subnet that nobody has is answered with an error instead of leaving the node unencrypted.
//!
//! In the mode `separate` each family has a link of its own, whose packets go between addresses of that family. In the others
//! one link carries both, and the mode says over which family its packets go.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use twill_backend::{
    Backend, Device, Endpoint, Failure, Intent, IpAddress, IpFamily, Link, LinkKind, Node, NodeFamily, NodePlan,
    NotPlanned, Object, Peer, PeerFamily, Prefix, Publication, Route, WireguardPeer, WrongValue,
};

/// Bytes around an inner packet, whatever the outer family is: 40 of IPv6, 8 of UDP, 32 of WireGuard. flannel's number.
const OVERHEAD: u32 = 80;

/// The backend, with what the operator wrote in net-conf.json.
#[derive(Debug, Clone)]
pub struct Wireguard {
    key: Key,
    mode: Mode,
    /// UDP: of the link, or in the mode `separate` of IPv4's.
    port: u16,
    /// UDP: of IPv6's link in the mode `separate`.
    port_v6: u16,
    /// Bytes of an outer packet.
    mtu: u32,
    keepalive: Option<u16>,
}

/// Which links there are, and over which family they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One for each family.
    Separate,
    /// One for both, over this family.
    Over(IpFamily),
    /// One for both, over the family that both ends have without address translation.
    Auto,
}

const MODES: [(&str, Mode); 4] = [
    ("separate", Mode::Separate),
    ("auto", Mode::Auto),
    ("ipv4", Mode::Over(IpFamily::Ipv4)),
    ("ipv6", Mode::Over(IpFamily::Ipv6)),
];

/// A public key.
type Key = [u8; 32];

/// What a node publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Published {
    key: Key,
    /// None: the one that this node listens on as well.
    port: Option<u16>,
}

impl Backend for Wireguard {
    const NAME: &'static str = "wireguard";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["link.wireguard", "route", "wireguard-peer"];

    fn new(node: &Node) -> Result<Self, Failure> {
        let key = node.wireguard_key.as_deref().and_then(|key| key.try_into().ok());
        let key = key.ok_or_else(|| Failure::Unsupported("the host has no WireGuard key pair for it".into()))?;
        let config = Object::config(node)?;
        let port = |key, default| -> Result<u16, WrongValue> {
            Ok(config.number(key, 1..=65_535)?.map_or(default, |port| port as u16))
        };
        let smallest = node.families.iter().map(|f| f.family.min_mtu()).max().unwrap_or(0) + OVERHEAD;
        let mtu = config.number("MTU", smallest..=65_535)?.unwrap_or(node.uplink.mtu);
        let keepalive = config.number("PersistentKeepaliveInterval", 0..=65_535)?.map(|seconds| seconds as u16);
        let backend = Self {
            key,
            mode: config.word("Mode", &MODES)?.unwrap_or(Mode::Separate),
            port: port("ListenPort", 51820)?,
            port_v6: port("ListenPortV6", 51821)?,
            mtu: mtu.min(node.uplink.mtu),
            keepalive: keepalive.filter(|seconds| *seconds != 0),
        };
        if backend.mode == Mode::Separate && node.families.len() > 1 && backend.port == backend.port_v6 {
            return Err(Failure::BadConfig(format!(
                "ListenPort and ListenPortV6 are both {}, but with Mode \"separate\" two links listen",
                backend.port
            )));
        }
        Ok(backend)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        let mut plan = NodePlan::new(self.mtu.saturating_sub(OVERHEAD));
        for family in &node.families {
            let name = self.link_name(node, family.family);
            self.add_address(&mut plan, &name, family);
            plan.intents.push(Route::to(family.network, Device::Link(name)).into());
            let (key, port) = (STANDARD.encode(self.key), self.port_of(family.family));
            plan.publish.push(Publication::new(family.family, format!(r#"{{"PublicKey":"{key}","Port":{port}}}"#)));
        }
        Ok(plan)
    }

    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let published = peer.families.iter().map(|family| self.published(family)).collect::<Result<Vec<_>, _>>()?;
        match self.mode {
            Mode::Separate => {
                let families = peer.families.iter().zip(published);
                Ok(families.map(|(family, said)| self.through_its_own(node, family, said)).collect())
            }
            Mode::Auto | Mode::Over(_) => Ok(vec![self.through_one(node, peer, &published)?]),
        }
    }
}

impl Wireguard {
    fn link_name(&self, node: &Node, family: IpFamily) -> String {
        match (self.mode, family) {
            (Mode::Separate, IpFamily::Ipv6) => format!("{}-wg-v6", node.link_prefix),
            _ => format!("{}-wg", node.link_prefix),
        }
    }

    /// The port on which packets for pods of a family arrive. flannel tells peers the IPv6 link's also where there is none.
    fn port_of(&self, family: IpFamily) -> u16 {
        match (self.mode, family) {
            (Mode::Separate, IpFamily::Ipv6) => self.port_v6,
            _ => self.port,
        }
    }

    /// Gives a link the address of a family; makes it, if it is not planned yet.
    fn add_address(&self, plan: &mut NodePlan, name: &str, family: &NodeFamily) {
        let address = Prefix::host(family.subnet.address);
        match plan.links.iter_mut().find(|link| link.name == name) {
            Some(link) => link.addresses.push(address),
            None => {
                let kind = LinkKind::Wireguard(self.port_of(family.family));
                plan.links.push(Link { addresses: vec![address], ..Link::new(name, kind, plan.pod_mtu) });
            }
        }
    }

    /// What a peer says of itself in one family.
    fn published(&self, family: &PeerFamily) -> Result<Published, NotPlanned> {
        let Some(text) = &family.published else {
            return Err(NotPlanned::Incomplete(format!("has not published its {} PublicKey yet", family.family)));
        };
        let said = Published::parse(text).and_then(|said| {
            if said.key == self.key { Err("PublicKey is this node's own".to_owned()) } else { Ok(said) }
        });
        said.map_err(|why| NotPlanned::Invalid(format!("its published {} data is wrong: {why}", family.family)))
    }

    fn through_its_own(&self, node: &Node, family: &PeerFamily, said: Published) -> Intent {
        let port = said.port.unwrap_or_else(|| self.port_of(family.family));
        let endpoint = Endpoint { address: family.public, port };
        self.peer(self.link_name(node, family.family), said.key, endpoint, family.subnets.clone())
    }

    fn through_one(&self, node: &Node, peer: &Peer, published: &[Published]) -> Result<Intent, NotPlanned> {
        let [first, others @ ..] = published else {
            return Err(NotPlanned::Invalid("it has no address family".into()));
        };
        if others.iter().any(|other| other.key != first.key) {
            return Err(NotPlanned::Invalid(
                "it has another PublicKey for IPv6 than for IPv4, as with Mode \"separate\" on other nodes".into(),
            ));
        }
        // flannel's nodes listen on the port that they publish for IPv4, and publish another one for IPv6.
        let misled = |port: &u16| *port == self.port_v6;
        let port = match (peer.families.first().map(|f| f.family), first.port) {
            (Some(IpFamily::Ipv6), port) => port.filter(|port| !misled(port)),
            (_, port) => port,
        };
        let endpoint = Endpoint { address: self.endpoint(node, peer)?, port: port.unwrap_or(self.port) };
        let allowed = peer.families.iter().flat_map(|family| family.subnets.iter().copied()).collect();
        Ok(self.peer(self.link_name(node, IpFamily::Ipv4), first.key, endpoint, allowed))
    }

    fn peer(&self, link: String, key: Key, endpoint: Endpoint, allowed: Vec<Prefix>) -> Intent {
        let (public_key, endpoint) = (key.to_vec(), Some(endpoint));
        WireguardPeer { link, public_key, endpoint, allowed, keepalive: self.keepalive }.into()
    }

    /// Where packets to a peer go if one link carries both families.
    fn endpoint(&self, node: &Node, peer: &Peer) -> Result<IpAddress, NotPlanned> {
        let of = |family| peer.families.iter().find(|f| f.family == family).map(|f| f.public);
        let own = |family| node.family(family).map(|f| f.public);
        let direct = |address: Option<IpAddress>| address.filter(|address| !is_private(*address));
        let (four, six) = (of(IpFamily::Ipv4), of(IpFamily::Ipv6));
        let chosen = match self.mode {
            Mode::Over(family) => of(family),
            _ => {
                let translated = direct(four).is_none() || own(IpFamily::Ipv4).is_none();
                let six_is_direct = direct(six).is_some() && direct(own(IpFamily::Ipv6)).is_some();
                if translated && six_is_direct { six } else { four.or(six) }
            }
        };
        chosen.ok_or_else(|| NotPlanned::Unreachable("it has no address of the family that Mode asks for".into()))
    }
}

impl Published {
    /// Reads `{"PublicKey":"…","Port":51820}`.
    fn parse(text: &str) -> Result<Self, String> {
        let object = Object::parse(text).map_err(|e| e.to_string())?;
        let key = object.text("PublicKey").map_err(|e| e.to_string())?.ok_or("PublicKey is missing")?;
        let key = STANDARD.decode(key).ok().and_then(|bytes| bytes.try_into().ok()).filter(|key| *key != [0; 32]);
        let port = object.number("Port", 0..=65_535).map_err(|e| e.to_string())?.map(|port| port as u16);
        Ok(Self { key: key.ok_or("PublicKey is not 32 bytes in base64")?, port: port.filter(|port| *port != 0) })
    }
}

/// Whether an address only means something inside somebody's own network: RFC 1918 and RFC 4193.
fn is_private(address: IpAddress) -> bool {
    match address {
        IpAddress::Ipv4((10, ..) | (172, 16..=31, ..) | (192, 168, ..)) => true,
        IpAddress::Ipv4(_) => false,
        IpAddress::Ipv6((first, ..)) => first & 0xfe00 == 0xfc00,
    }
}

twill_backend::export_backend!(Wireguard);

#[cfg(test)]
mod tests;
