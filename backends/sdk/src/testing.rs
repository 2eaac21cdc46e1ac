//! For an author's tests: nodes and peers as they mostly are, to be changed where a test wants something else, and the
//! backend asked as the host asks it.
//!
//! ```
//! # use twill_backend::*;
//! # struct Direct;
//! # impl Backend for Direct {
//! #     const NAME: &'static str = "direct";
//! #     const VERSION: &'static str = "1";
//! #     const REQUIRES: &'static [&'static str] = &["route"];
//! #     fn new(_: &Node) -> Result<Self, Failure> { Ok(Self) }
//! #     fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> { Ok(NodePlan::new(node.uplink.mtu)) }
//! #     fn plan_peer(&self, _: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
//! #         let route = |f: &PeerFamily| Route::via(f.subnets[0], f.public, Device::Uplink).into();
//! #         Ok(peer.families.iter().map(route).collect())
//! #     }
//! # }
//! use twill_backend::testing::{node, peer_of, plan_node, plan_peer};
//!
//! let alpha = node(&[("10.244.1.0/24", "192.168.0.1")]).with_uplink_mtu(9000);
//! let beta = node(&[("10.244.2.0/24", "192.168.0.2")]).named("beta");
//! assert_eq!(plan_node::<Direct>(&alpha).unwrap().pod_mtu, 9000);
//!
//! // What alpha makes of beta, once beta has published what it plans to.
//! let seen = peer_of(&beta, &plan_node::<Direct>(&beta).unwrap());
//! let Verdict::Plan(intents) = plan_peer::<Direct>(&alpha, &seen) else { panic!("no plan") };
//! assert_eq!(intents.len(), 1);
//! ```

use crate::bindings::exports::twill::backend::planner::Guest;
use crate::{
    Backend, Exported, Failure, IpAddress, IpFamily, Node, NodeFamily, NodePlan, Peer, PeerFamily, Prefix, Uplink,
    Verdict,
};

/// What the backend plans for a node, asked as the host asks it.
///
/// # Errors
/// Those of the backend.
pub fn plan_node<B: Backend>(node: &Node) -> Result<NodePlan, Failure> {
    Exported::<B>::plan_node(node.clone())
}

/// What the backend says of a peer, asked as the host asks it.
///
/// # Panics
/// When the backend fails as a whole, or does not answer with one verdict for the one peer.
#[must_use]
pub fn plan_peer<B: Backend>(node: &Node, peer: &Peer) -> Verdict {
    match Exported::<B>::plan_peers(node.clone(), vec![peer.clone()]).as_deref() {
        Ok([verdict]) => verdict.clone(),
        Ok(verdicts) => panic!("{} verdicts for one peer", verdicts.len()),
        Err(failure) => panic!("{failure:?}"),
    }
}

/// What `node` looks like to others when it has published what `plan` says. It is on-link to them.
#[must_use]
pub fn peer_of(node: &Node, plan: &NodePlan) -> Peer {
    let families = node.families.iter().map(|family| PeerFamily {
        family: family.family,
        subnets: vec![family.subnet],
        public: family.public,
        published: plan.publish.iter().find(|p| p.family == family.family).map(|p| p.data.clone()),
        on_link: true,
    });
    Peer { name: node.name.clone(), backend: "test".into(), families: families.collect() }
}

/// Changes for tests.
impl Node {
    /// The same with another name and, as every node has, another seed.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let seed = name.bytes().chain(std::iter::repeat(7)).take(32).collect();
        Self { name: name.into(), seed, ..self }
    }

    /// The same with this configuration: the backend's object out of net-conf.json.
    #[must_use]
    pub fn with_config(self, config: &str) -> Self {
        Self { config: config.into(), ..self }
    }

    /// The same with packets of this size on the uplink.
    #[must_use]
    pub fn with_uplink_mtu(mut self, mtu: u32) -> Self {
        self.uplink.mtu = mtu;
        self
    }

    /// The same as if the backend had published this for every family before.
    #[must_use]
    pub fn having_published(mut self, data: &str) -> Self {
        self.families.iter_mut().for_each(|family| family.published = Some(data.into()));
        self
    }
}

/// Changes for tests.
impl Peer {
    /// The same with this published for every family.
    #[must_use]
    pub fn having_published(mut self, data: &str) -> Self {
        self.families.iter_mut().for_each(|family| family.published = Some(data.into()));
        self
    }

    /// The same behind a gateway, in every family.
    #[must_use]
    pub fn behind_a_gateway(mut self) -> Self {
        self.families.iter_mut().for_each(|family| family.on_link = false);
        self
    }
}

/// A node called `alpha` with uplink `eth0` of 1500 bytes, no configuration and no past, in the
/// pod networks `10.244.0.0/16` and `fd00::/16`. One family per pair of pod subnet and node address.
///
/// ```
/// let node = twill_backend::testing::node(&[("10.244.1.0/24", "192.168.0.1"), ("fd00:1::/64", "fd01::1")]);
/// assert_eq!(node.families.len(), 2);
/// ```
///
/// # Panics
/// When a text is no network or no address.
#[must_use]
pub fn node(families: &[(&str, &str)]) -> Node {
    let families = families.iter().map(|(subnet, local)| {
        let (subnet, local) = (prefix(subnet), address(local));
        let network = prefix(if local.family() == IpFamily::Ipv4 { "10.244.0.0/16" } else { "fd00::/16" });
        NodeFamily { family: local.family(), network, subnet, local, public: local, published: None }
    });
    Node {
        name: "alpha".into(),
        config: String::new(),
        uplink: Uplink { name: "eth0".into(), mtu: 1500 },
        families: families.collect(),
        link_prefix: "flannel".into(),
        existing_links: Vec::new(),
        seed: vec![7; 32],
        wireguard_key: None,
        features: ["link.vxlan", "route", "neighbor", "forwarding"].map(Into::into).into(),
    }
}

/// A peer called `beta` that has published nothing and is on-link. One family per pair of pod subnet and public address.
///
/// # Panics
/// When a text is no network or no address.
#[must_use]
pub fn peer(families: &[(&str, &str)]) -> Peer {
    let families = families.iter().map(|(subnet, public)| {
        let public = address(public);
        PeerFamily { family: public.family(), subnets: vec![prefix(subnet)], public, published: None, on_link: true }
    });
    Peer { name: "beta".into(), backend: "test".into(), families: families.collect() }
}

/// The address that a text means.
///
/// # Panics
/// When it means none.
#[must_use]
pub fn address(text: &str) -> IpAddress {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The network that a text like `10.244.1.0/24` means.
///
/// # Panics
/// When it means none.
#[must_use]
pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}
