//! What the kernel can do, and that asking for it changes nothing.

use crate::namespace::{isolated, sh};

/// What iproute2 shows of everything that asking could change.
fn shown() -> String {
    sh("ip -d link; ip addr; ip route show table all")
}

#[test]
fn asking_makes_nothing() {
    isolated("asking_makes_nothing", || async {
        let before = shown();
        for kind in ["vxlan", "ipip", "geneve", "no-such-kind"] {
            let _ = twill_netlink::knows_link_kind(kind).unwrap();
            twill_netlink::load_link_kind(kind).unwrap();
        }
        let _ = twill_netlink::knows_tunnel_encap().unwrap();
        assert_eq!(shown(), before);
    });
}

#[test]
fn kinds_are_known_as_they_can_be_made() {
    isolated("kinds_are_known_as_they_can_be_made", || async {
        // With links of the kind, and with none.
        for kind in ["vxlan id 7 dstport 4789", "bridge", "ipip local 192.0.2.1", "geneve external", "no-such-kind"] {
            let name = kind.split_whitespace().next().unwrap();
            twill_netlink::load_link_kind(name).unwrap();
            let known = twill_netlink::knows_link_kind(name).unwrap();
            let made = sh(&format!("ip link add probe type {kind} 2>/dev/null && echo made || echo refused"));
            assert_eq!(known, made.trim() == "made", "{kind}");
            assert_eq!(twill_netlink::knows_link_kind(name).unwrap(), known, "{kind}, with a link of it");
            sh("ip link del probe 2>/dev/null || true");
        }
    });
}

#[test]
fn tunnels_of_routes_are_known_as_they_can_be_made() {
    isolated("tunnels_of_routes_are_known_as_they_can_be_made", || async {
        sh(
            "ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up; ip addr add 10.9.0.1/24 dev d0",
        );
        let made = sh("ip route add 10.8.0.0/24 encap ip id 1 dst 192.0.2.2 via 10.9.0.2 dev d0 2>/dev/null \
                       && echo made || echo refused");
        assert_eq!(twill_netlink::knows_tunnel_encap().unwrap(), made.trim() == "made");
    });
}
