//! flannel's `dist/extension-hostgw`: a route to each peer's pods by way of the peer.
//!
//! | flannel | here |
//! | --- | --- |
//! | `SubnetAddCommand`: `ip route add $SUBNET via $PUBLIC_IP` | [`Route::via`]`(subnet, public, Device::Uplink)` in `plan_peer` |
//! | `SubnetRemoveCommand`: `ip route del $SUBNET via $PUBLIC_IP` | nothing: what a plan no longer holds goes |

use twill_backend::{Backend, Device, Failure, Intent, Node, NodePlan, NotPlanned, Peer, Route};

/// The backend. It has no configuration.
#[derive(Debug, Clone)]
pub struct HostGw;

impl Backend for HostGw {
    const NAME: &'static str = "extension-hostgw";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const REQUIRES: &'static [&'static str] = &["route"];

    fn new(_node: &Node) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure> {
        Ok(NodePlan { links: vec![], intents: vec![], publish: vec![], pod_mtu: node.uplink.mtu })
    }

    fn plan_peer(&self, _node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned> {
        let mut routes = Vec::new();
        for family in &peer.families {
            // The command fails for such a peer, and nothing says so but flannel's log.
            if !family.on_link {
                return Err(NotPlanned::Unreachable(format!("{} is behind a gateway", family.public)));
            }
            let route = |subnet: &_| Intent::Route(Route::via(*subnet, family.public, Device::Uplink));
            routes.extend(family.subnets.iter().map(route));
        }
        Ok(routes)
    }
}

#[cfg(test)]
mod tests {
    use twill_backend::testing::{address, node, peer, prefix};

    use super::*;

    #[test]
    fn a_route_per_peer() {
        let node = node(&[("10.50.1.0/24", "192.168.0.1")]);
        let mut peer = peer(&[("10.50.2.0/24", "192.168.0.2")]);
        let route = Route::via(prefix("10.50.2.0/24"), address("192.168.0.2"), Device::Uplink);
        assert_eq!(HostGw.plan_peer(&node, &peer).unwrap(), [Intent::Route(route)]);
        peer.families[0].on_link = false;
        let refused = NotPlanned::Unreachable("192.168.0.2 is behind a gateway".into());
        assert_eq!(HostGw.plan_peer(&node, &peer).unwrap_err(), refused);
    }
}
