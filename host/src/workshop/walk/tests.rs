use ipnet::IpNet;
use twill_model::{Geneve, Intent, Ipip, Link, LinkKind, Mac, PublicKey, TunnelKey, Vxlan};

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn mac(node: u8) -> Mac {
    Mac([0x0e, 0, 0, 0, 0, node])
}

fn outer(node: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, node])
}

fn base(node: u8) -> IpAddr {
    IpAddr::from([10, 244, node, 0])
}

fn subnet(node: u8) -> IpNet {
    net(&format!("10.244.{node}.0/24"))
}

/// A node with a vxlan link to one other, as the vxlan backend plans it.
fn machine(node: u8, peers: &[u8]) -> Machine {
    let link = "flannel.1".to_owned();
    let vxlan = Vxlan { vni: 1, port: 0, local: outer(node), learning: false, gbp: false };
    let intents = peers.iter().flat_map(|&peer| {
        [
            Intent::Route(Route {
                destination: subnet(peer),
                device: Device::Link(link.clone()),
                gateway: Some(base(peer)),
                on_link: true,
                source: None,
                mtu: None,
                metric: None,
                encap: None,
            }),
            Intent::Neighbor { link: link.clone(), address: base(peer), mac: mac(peer) },
            Intent::Forwarding { link: link.clone(), mac: mac(peer), remote: outer(peer) },
        ]
    });
    Machine {
        name: format!("n{node}"),
        segment: 0,
        uplink: "eth0".into(),
        mtu: 1500,
        addresses: vec![outer(node)],
        pod_mtu: 1450,
        subnets: vec![subnet(node)],
        wireguard_key: None,
        intents: intents.collect(),
        links: vec![Link {
            name: link.clone(),
            kind: LinkKind::Vxlan(vxlan),
            mtu: 1450,
            mac: Some(mac(node)),
            addresses: vec![IpNet::new(base(node), 32).unwrap()],
        }],
        excuses: Default::default(),
    }
}

fn two(change: impl FnOnce(&mut Vec<Machine>)) -> Walk {
    let mut machines = vec![machine(1, &[2]), machine(2, &[1])];
    change(&mut machines);
    walk(&World::new(machines), 0, 1, Family::V4).unwrap()
}

#[track_caller]
fn breaks(change: impl FnOnce(&mut Vec<Machine>), node: &str, command: &str, found: &str) {
    let walk = two(change);
    let last = walk.steps.last().unwrap();
    assert!(!walk.arrives, "{walk}");
    assert_eq!((last.node.as_str(), last.command.as_str(), last.found.as_str()), (node, command, found), "{walk}");
}

fn route(intents: &mut [Intent]) -> &mut Route {
    intents.iter_mut().find_map(|i| if let Intent::Route(route) = i { Some(route) } else { None }).unwrap()
}

fn vxlan(machine: &mut Machine) -> &mut Vxlan {
    let LinkKind::Vxlan(vxlan) = &mut machine.links[0].kind else { panic!("another kind") };
    vxlan
}

#[test]
fn a_packet_arrives() {
    assert_eq!(
        two(|_| {}).to_string(),
        "n1 10.244.1.254 → n2 10.244.2.254\n  \
         n1$ ip route get 10.244.2.254               10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink\n  \
         n1$ ip neigh show 10.244.2.0 dev flannel.1  10.244.2.0 lladdr 0e:00:00:00:00:02\n  \
         n1$ bridge fdb show dev flannel.1           0e:00:00:00:00:02 dst 192.0.2.2\n  \
         n2$ ip -d link show type vxlan              flannel.1 vxlan id 1 dstport 8472 local 192.0.2.2 lladdr 0e:00:00:00:00:02\n"
    );
}

#[test]
fn every_hop_can_break() {
    breaks(
        |m| m[0].intents.retain(|i| !matches!(i, Intent::Route(_))),
        "n1",
        "ip route get 10.244.2.254",
        "no route but the default one, which leads out of the cluster",
    );
    breaks(
        |m| {
            m[0].intents.clear();
            m[0].excuses = [("n2".to_owned(), "n2 is incomplete: no VtepMAC".to_owned())].into();
        },
        "n1",
        "ip route get 10.244.2.254",
        "no route: n2 is incomplete: no VtepMAC",
    );
    breaks(
        |m| m[0].intents.retain(|i| !matches!(i, Intent::Neighbor { .. })),
        "n1",
        "ip neigh show 10.244.2.0 dev flannel.1",
        "no entry for 10.244.2.0: nobody in the tunnel answers when it is asked for",
    );
    breaks(
        |m| m[0].intents.retain(|i| !matches!(i, Intent::Forwarding { .. })),
        "n1",
        "bridge fdb show dev flannel.1",
        "no entry for 0e:00:00:00:00:02: the frame has nowhere to go",
    );
    breaks(|m| m[0].links.clear(), "n1", "ip link show flannel.1", "there is no link flannel.1");
    breaks(
        |m| route(&mut m[0].intents).on_link = false,
        "n1",
        "ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1",
        "the kernel refuses it: 10.244.2.0 is not reachable on flannel.1; say `onlink` (on-link in the contract)",
    );
    breaks(
        |m| m[1].addresses = vec![outer(9)],
        "n1",
        "ip route get 192.0.2.2",
        "no node has the address 192.0.2.2: the packet is lost",
    );
    breaks(
        |m| m[1].links.clear(),
        "n2",
        "ip -d link show type vxlan",
        "no link takes packets for vxlan id 1 dstport 8472 local 192.0.2.2; there is none at all",
    );
    breaks(
        |m| vxlan(&mut m[1]).vni = 2,
        "n2",
        "ip -d link show type vxlan",
        "no link takes packets for vxlan id 1 dstport 8472 local 192.0.2.2; there is flannel.1 vxlan id 2 dstport 8472 \
         local 192.0.2.2",
    );
    breaks(
        |m| vxlan(&mut m[0]).port = 4789,
        "n2",
        "ip -d link show type vxlan",
        "no link takes packets for vxlan id 1 dstport 4789 local 192.0.2.2; there is flannel.1 vxlan id 1 dstport 8472 \
         local 192.0.2.2",
    );
    breaks(
        |m| m[1].links[0].mac = Some(mac(7)),
        "n2",
        "ip -d link show type vxlan",
        "the frame is for 0e:00:00:00:00:02 and flannel.1 has 0e:00:00:00:00:07: the kernel drops it",
    );
    breaks(
        |m| m[1].links[0].mac = None,
        "n2",
        "ip -d link show type vxlan",
        "the frame is for 0e:00:00:00:00:02 and the address of flannel.1 is chosen by the kernel: nobody can know it",
    );
    breaks(
        |m| m[0].pod_mtu = 1500,
        "n1",
        "ip link show flannel.1",
        "a packet of 1500 bytes, as pods send, does not fit its MTU 1450",
    );
    breaks(
        |m| {
            m[0].pod_mtu = 1460;
            m[0].links[0].mtu = 1460;
        },
        "n1",
        "ip link show flannel.1",
        "1460 bytes and 50 around them do not fit the MTU 1500 of eth0",
    );
}

/// Plain routes from each node to all others.
fn direct(machines: &mut [Machine]) {
    for machine in machines {
        machine.links.clear();
        for intent in &mut machine.intents {
            if let Intent::Route(route) = intent {
                let IpNet::V4(subnet) = route.destination else { continue };
                route.device = Device::Uplink;
                route.gateway = Some(outer(subnet.addr().octets()[2]));
                route.on_link = false;
            }
        }
    }
}

#[test]
fn plain_routes_end_at_the_segment() {
    assert!(two(|m| direct(m)).arrives);
    breaks(
        |m| {
            direct(m);
            m[1].segment = 1;
        },
        "n1",
        "ip neigh get 192.0.2.2 dev eth0",
        "192.0.2.2 is n2, on another segment: nobody here answers for it",
    );
    breaks(
        |m| {
            direct(m);
            route(&mut m[0].intents).gateway = Some(outer(77));
        },
        "n1",
        "ip neigh get 192.0.2.77 dev eth0",
        "no node has the address 192.0.2.77",
    );
}

#[test]
fn a_packet_may_pass_a_node_but_not_for_ever() {
    let mut machines = vec![machine(1, &[2, 3]), machine(2, &[1, 3]), machine(3, &[1, 2])];
    direct(&mut machines);
    let by = |machine: &mut Machine, to: u8, gateway: u8| {
        for intent in &mut machine.intents {
            if let Intent::Route(route) = intent
                && route.destination == subnet(to)
            {
                route.gateway = Some(outer(gateway));
            }
        }
    };
    by(&mut machines[0], 3, 2);
    let way = walk(&World::new(machines.clone()), 0, 2, Family::V4).unwrap();
    assert!(way.arrives, "{way}");
    assert_eq!(way.steps.iter().map(|step| step.node.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    by(&mut machines[1], 3, 1);
    let way = walk(&World::new(machines), 0, 2, Family::V4).unwrap();
    assert!(!way.arrives);
    assert!(way.steps.last().unwrap().found.ends_with("it goes round in circles"), "{way}");
}

#[test]
fn the_longest_prefix_wins_and_then_the_metric() {
    let wide = |metric| {
        Intent::Route(Route {
            destination: net("10.244.0.0/16"),
            device: Device::Uplink,
            gateway: None,
            on_link: false,
            source: None,
            mtu: None,
            metric,
            encap: None,
        })
    };
    assert!(two(|m| m[0].intents.insert(0, wide(None))).arrives, "the route for the cluster does not hide the peer's");
    let walk = two(|m| {
        let better = Route { device: Device::Uplink, gateway: Some(outer(2)), ..route(&mut m[0].intents).clone() };
        route(&mut m[0].intents).metric = Some(10);
        m[0].intents.push(Intent::Route(better));
    });
    assert!(walk.arrives && walk.steps.len() == 1, "{walk}");
}

/// A node that uses another kind of link for the same peers.
fn by(machine: &mut Machine, kind: LinkKind, change: impl Fn(&mut Route)) {
    machine.links[0].kind = kind;
    for intent in &mut machine.intents {
        if let Intent::Route(route) = intent {
            change(route);
        }
    }
}

fn ipip(machines: &mut [Machine]) {
    for (node, machine) in [1, 2].into_iter().zip(machines) {
        let IpAddr::V4(local) = outer(node) else { continue };
        by(machine, LinkKind::Ipip(Ipip { local }), |route| route.gateway = Some(outer(3 - node)));
        machine.links[0].mac = None;
        machine.intents.retain(|intent| matches!(intent, Intent::Route(_)));
    }
}

#[test]
fn ipip_ends_at_the_gateway() {
    let walk = two(|m| ipip(m));
    assert!(walk.arrives && walk.steps.len() == 2, "{walk}");
    breaks(
        |m| {
            ipip(m);
            route(&mut m[0].intents).gateway = Some(base(2));
        },
        "n1",
        "ip route get 10.244.2.0",
        "no node has the address 10.244.2.0: the packet is lost",
    );
    breaks(
        |m| {
            ipip(m);
            m[1].links.clear();
        },
        "n2",
        "ip -d link show type ipip",
        "no link takes packets for ipip local 192.0.2.2",
    );
    breaks(
        |m| {
            ipip(m);
            m[0].links[0].mtu = 1490;
            m[0].pod_mtu = 1490;
        },
        "n1",
        "ip link show flannel.1",
        "1490 bytes and 20 around them do not fit the MTU 1500 of eth0",
    );
}

fn geneve(machines: &mut [Machine]) {
    for (node, machine) in [1, 2].into_iter().zip(machines) {
        let encap = Some(TunnelKey { id: 1, remote: outer(3 - node) });
        by(machine, LinkKind::Geneve(Geneve { port: 0 }), |route| route.encap = encap);
        machine.intents.retain(|intent| !matches!(intent, Intent::Forwarding { .. }));
    }
}

#[test]
fn geneve_takes_its_tunnel_from_the_route() {
    let walk = two(|m| geneve(m));
    assert!(walk.arrives && walk.steps.len() == 3, "{walk}");
    breaks(
        |m| {
            geneve(m);
            route(&mut m[0].intents).encap = None;
        },
        "n1",
        "ip route show 10.244.2.0/24",
        "it names no tunnel (encap), and flannel.1 takes its tunnels from routes",
    );
    breaks(
        |m| {
            geneve(m);
            m[1].links[0].kind = LinkKind::Geneve(Geneve { port: 7 });
        },
        "n2",
        "ip -d link show type geneve",
        "no link takes packets for geneve external dstport 6081",
    );
    breaks(
        |m| {
            geneve(m);
            m[1].links[0].mac = Some(mac(7));
        },
        "n2",
        "ip -d link show type geneve",
        "the frame is for 0e:00:00:00:00:02 and flannel.1 has 0e:00:00:00:00:07: the kernel drops it",
    );
}

#[test]
fn a_family_that_is_off_is_not_walked() {
    let world = World::new(vec![machine(1, &[2]), machine(2, &[1])]);
    assert_eq!(walk(&world, 0, 1, Family::V6), None);
}

fn key(node: u8) -> PublicKey {
    PublicKey([node; 32])
}

/// A node with a WireGuard link to others, as the wireguard backend plans it.
fn encrypting(node: u8, peers: &[u8]) -> Machine {
    let plain = machine(node, peers);
    let name = "flannel-wg".to_owned();
    let route = Route {
        destination: net("10.244.0.0/16"),
        device: Device::Link(name.clone()),
        gateway: None,
        on_link: false,
        source: None,
        mtu: None,
        metric: None,
        encap: None,
    };
    let peer = |&peer: &u8| Intent::WireguardPeer {
        link: name.clone(),
        public_key: key(peer),
        endpoint: Some((outer(peer), 51820).into()),
        allowed: vec![subnet(peer)],
        keepalive: None,
    };
    let link =
        Link { name: name.clone(), kind: LinkKind::Wireguard { port: 51820 }, mtu: 1440, mac: None, addresses: vec![] };
    Machine {
        pod_mtu: 1440,
        wireguard_key: Some(key(node)),
        links: vec![link],
        intents: [Intent::Route(route)].into_iter().chain(peers.iter().map(peer)).collect(),
        ..plain
    }
}

#[test]
fn through_wireguard() {
    let walked = |change: fn(&mut Machine, &mut Machine)| {
        let (mut here, mut there) = (encrypting(1, &[2]), encrypting(2, &[1]));
        change(&mut here, &mut there);
        let walk = walk(&World::new(vec![here, there]), 0, 1, Family::V4).unwrap();
        let last = walk.steps.last().unwrap();
        (walk.arrives, format!("{}: {}", last.command, last.found))
    };
    assert_eq!(walked(|_, _| {}), (true, format!("wg show all: flannel-wg peer {} allowed 10.244.1.254", key(1))));
    type Change = fn(&mut Machine, &mut Machine);
    let broken: [(Change, String); 6] = [
        (
            |here, _| drop(here.intents.pop()),
            "wg show flannel-wg: 10.244.2.254 is in nobody's allowed ips: it is dropped".into(),
        ),
        (
            |_, there| drop(there.intents.pop()),
            "wg show all: 10.244.1.254 is in nobody's allowed ips on flannel-wg: it is dropped".into(),
        ),
        (
            |_, there| there.links[0].kind = LinkKind::Wireguard { port: 51821 },
            "wg show all: no link listens on port 51820".into(),
        ),
        (
            |_, there| there.wireguard_key = Some(key(7)),
            format!("wg show all: the packet is for the key {}, which is not n2's", key(2)),
        ),
        (
            |here, _| here.wireguard_key = Some(key(7)),
            format!("wg show all: 10.244.1.254 comes from {} and is {}'s: it is dropped", key(7), key(1)),
        ),
        (
            |here, _| here.links[0].mtu = 1439,
            "ip link show flannel-wg: a packet of 1440 bytes, as pods send, does not fit its MTU 1439".into(),
        ),
    ];
    for (change, found) in broken {
        assert_eq!(walked(change), (false, found));
    }
}
