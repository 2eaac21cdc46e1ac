//! Taking a plan apart by address families.

use ipnet::IpNet;
use twill_model::{Family, Intent, Mac};

/// The intents that serve some families: routes and neighbours by their addresses, FDB entries by the neighbour that
/// they belong to, or else by where they lead. A WireGuard peer may serve both, and is taken apart.
pub(super) fn of_families(intents: &[Intent], families: &[Family]) -> Vec<Intent> {
    let neighbor_of = |station: &Mac, on: &str| {
        intents.iter().find_map(|intent| match intent {
            Intent::Neighbor { link, address, mac } if mac == station && link == on => Some(Family::of(address)),
            _ => None,
        })
    };
    let family = |intent: &Intent| match intent {
        Intent::Route(route) => Some(Family::of_net(&route.destination)),
        Intent::Neighbor { address, .. } => Some(Family::of(address)),
        Intent::Forwarding { link, mac, remote } => Some(neighbor_of(mac, link).unwrap_or_else(|| Family::of(remote))),
        Intent::WireguardPeer { .. } | Intent::Unsupported(_) => None,
    };
    let part = |intent: &Intent| match intent {
        Intent::WireguardPeer { link, public_key, endpoint, allowed, keepalive } => {
            let served = |net: &&IpNet| families.contains(&Family::of_net(net));
            let allowed: Vec<IpNet> = allowed.iter().filter(served).copied().collect();
            let (link, public_key, endpoint, keepalive) = (link.clone(), *public_key, *endpoint, *keepalive);
            let kept = Intent::WireguardPeer { link, public_key, endpoint, allowed: allowed.clone(), keepalive };
            (!allowed.is_empty()).then_some(kept)
        }
        other => family(other).filter(|family| families.contains(family)).map(|_| other.clone()),
    };
    intents.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_of_one_family() {
        let link = "flannel-v6.1".to_owned();
        let mac = Mac([2, 0, 0, 0, 0, 6]);
        let six = vec![
            Intent::Neighbor { link: link.clone(), address: "fd00::1".parse().unwrap(), mac },
            Intent::Forwarding { link, mac, remote: "192.0.2.1".parse().unwrap() },
        ];
        let four =
            Intent::Neighbor { link: "flannel.1".into(), address: "10.244.1.0".parse().unwrap(), mac: Mac([2; 6]) };
        let all: Vec<Intent> = six.iter().cloned().chain([four.clone()]).collect();
        assert_eq!(of_families(&all, &[Family::V6]), six);
        assert_eq!(of_families(&all, &[Family::V4]), [four]);
    }
}
