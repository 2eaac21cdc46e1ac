use std::net::IpAddr;

use ipnet::IpNet;
use twill_cni::Attachment;
use twill_cni::bridge::masquerade::{Backend, Masquerade, prune};

use crate::namespace::{at_once, isolated, sh};

const PROGRAMS: &[&str] = &["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore", "nft"];

/// What other plugins and people have in the same table.
const FOREIGN: &str = "iptables -t nat -N CNI-DN-0123 && iptables -t nat -A POSTROUTING -s 10.9.0.9 -j CNI-DN-0123
    iptables -t nat -A CNI-DN-0123 -m comment --comment 'dnat name: \"net1\" id: \"c1\"' -j RETURN
    iptables -t nat -A POSTROUTING -s 10.7.0.2 -m comment --comment 'name: \"net1\" id: \"c1\"' -j RETURN
    nft add table inet cni_plugins_masquerade && nft add chain inet cni_plugins_masquerade masq_checks
    nft add rule inet cni_plugins_masquerade masq_checks ip saddr 10.9.0.9 masquerade comment mine";

fn pod(container: &str, ifname: &str) -> Attachment {
    Attachment::new(container, ifname).unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The rules of iptables without what differs from call to call.
fn iptables() -> String {
    let all = sh("iptables-save -t nat; ip6tables-save -t nat");
    all.lines()
        .filter(|line| line.starts_with("-A ") || line.starts_with(":CNI-"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn masquerade<'a>(attachment: &'a Attachment) -> Masquerade<'a> {
    Masquerade { network: "net1", attachment }
}

#[test]
fn iptables_has_the_rules_of_the_reference_however_often_they_are_added() {
    isolated("iptables rules", PROGRAMS, || {
        let pod = pod("c1", "eth0");
        let expected = r#":CNI-c2d892b58e87e28a12fe6479 - [0:0]
-A POSTROUTING -s 10.7.0.2/32 -m comment --comment "name: \"net1\" id: \"c1\"" -j CNI-c2d892b58e87e28a12fe6479
-A CNI-c2d892b58e87e28a12fe6479 -d 10.7.0.0/24 -m comment --comment "name: \"net1\" id: \"c1\"" -j ACCEPT
-A CNI-c2d892b58e87e28a12fe6479 ! -d 224.0.0.0/4 -m comment --comment "name: \"net1\" id: \"c1\"" -j MASQUERADE
:CNI-c2d892b58e87e28a12fe6479 - [0:0]
-A POSTROUTING -s fd07::2/128 -m comment --comment "name: \"net1\" id: \"c1\"" -j CNI-c2d892b58e87e28a12fe6479
-A CNI-c2d892b58e87e28a12fe6479 -d fd07::/64 -m comment --comment "name: \"net1\" id: \"c1\"" -j ACCEPT
-A CNI-c2d892b58e87e28a12fe6479 ! -d ff00::/8 -m comment --comment "name: \"net1\" id: \"c1\"" -j MASQUERADE
"#;
        for backend in [Backend::Any, Backend::Iptables] {
            masquerade(&pod).add(backend, &nets(&["10.7.0.2/24", "fd07::2/64"])).unwrap();
            assert_eq!(iptables(), expected);
        }
        // As an ADD that was killed, or a person, may leave it.
        for missing in ["-F CNI-c2d892b58e87e28a12fe6479", "-D CNI-c2d892b58e87e28a12fe6479 1", "-F POSTROUTING"] {
            sh(&format!("iptables -t nat {missing}; ip6tables -t nat {missing}"));
            masquerade(&pod).add(Backend::Iptables, &nets(&["10.7.0.2/24", "fd07::2/64"])).unwrap();
            assert_eq!(iptables(), expected, "after {missing}");
        }
    });
}

#[test]
fn nftables_has_the_rules_of_the_reference_however_often_they_are_added() {
    isolated("nftables rules", PROGRAMS, || {
        let pod = pod("c1", "eth0");
        // What the reference gives to `nft`, as cni.md describes it.
        let comment = "8e48f37d5de60467-f4d01f2ef4b92245, net: net1, if: eth0, id: c1";
        let reference = format!(
            r#"nft -f - <<END
add table inet cni_plugins_masquerade {{ comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }}
add chain inet cni_plugins_masquerade masq_checks {{ comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }}
add chain inet cni_plugins_masquerade postrouting {{ type nat hook postrouting priority 100 ; }}
add rule inet cni_plugins_masquerade postrouting ip daddr == 224.0.0.0/4  return
add rule inet cni_plugins_masquerade postrouting ip6 daddr == ff00::/8  return
add rule inet cni_plugins_masquerade postrouting goto masq_checks
add rule inet cni_plugins_masquerade masq_checks ip saddr == 10.7.0.2 ip daddr != 10.7.0.0/24 masquerade comment "{comment}"
add rule inet cni_plugins_masquerade masq_checks ip saddr == 10.8.4.2 ip daddr != 10.8.4.0/22 masquerade comment "{comment}"
add rule inet cni_plugins_masquerade masq_checks ip6 saddr == fd07::2 ip6 daddr != fd07::/64 masquerade comment "{comment}"
END
nft --debug=netlink list ruleset 2>&1; nft flush ruleset"#
        );
        let expected = sh(&reference);
        assert!(expected.contains("masquerade comment"), "{expected}");
        for _ in 0..2 {
            let addresses = nets(&["10.7.0.2/24", "10.8.4.2/22", "fd07::2/64"]);
            masquerade(&pod).add(Backend::Nftables, &addresses).unwrap();
            let handles = |text: &str| -> String {
                text.split_inclusive(' ').filter(|word| word.trim().parse::<u32>().is_err()).collect()
            };
            assert_eq!(handles(&sh("nft --debug=netlink list ruleset 2>&1")), handles(&expected));
        }
    });
}

#[test]
fn what_was_added_goes_without_its_addresses_and_nothing_else() {
    isolated("masquerade removal", PROGRAMS, || {
        let pod = pod("c1", "eth0");
        masquerade(&pod).remove(|_| false).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
        for backend in [Backend::Iptables, Backend::Nftables] {
            sh(FOREIGN);
            let before = sh("nft list ruleset");
            masquerade(&pod).add(backend, &nets(&["10.7.0.2/24", "10.8.0.2/24", "fd07::2/64"])).unwrap();
            assert_ne!(sh("nft list ruleset"), before);
            for _ in 0..2 {
                masquerade(&pod).remove(|_| false).unwrap();
                assert_eq!(iptables().matches("c2d892b58e87e28a12fe6479").count(), 0);
                assert!(!sh("nft list table inet cni_plugins_masquerade").contains("net1"));
                assert_eq!(sh("nft list ruleset").matches("10.9.0.9").count(), 2);
                assert_eq!(iptables().matches("-j RETURN").count(), 2);
            }
            sh("nft flush ruleset");
        }
    });
}

#[test]
fn another_interface_of_the_container_keeps_its_rules() {
    isolated("two interfaces", PROGRAMS, || {
        let (first, second) = (pod("c1", "eth0"), pod("c1", "net1"));
        let alone = |backend| {
            masquerade(&second).add(backend, &nets(&["10.8.0.2/24"])).unwrap();
            let rules = sh("nft -s list ruleset");
            (iptables(), rules)
        };
        let (expected, _) = alone(Backend::Iptables);
        masquerade(&first).add(Backend::Iptables, &nets(&["10.7.0.2/24"])).unwrap();
        assert_eq!(iptables().matches("-j MASQUERADE").count(), 1);
        let kept: IpAddr = "10.8.0.2".parse().unwrap();
        masquerade(&first).remove(|address| address == kept).unwrap();
        // The chain keeps what the first needed: nobody can tell what else needs it.
        let left: String =
            iptables().lines().filter(|line| !line.contains("10.7.0.0/24")).map(|l| format!("{l}\n")).collect();
        assert_eq!(left, expected);
        masquerade(&second).remove(|_| false).unwrap();
        assert_eq!(iptables(), "");

        sh("nft flush ruleset");
        let (_, expected) = alone(Backend::Nftables);
        masquerade(&first).add(Backend::Nftables, &nets(&["10.7.0.2/24"])).unwrap();
        masquerade(&first).remove(|_| false).unwrap();
        assert_eq!(sh("nft -s list ruleset"), expected);
    });
}

#[test]
fn pruning_removes_what_is_of_the_network_and_not_in_the_list() {
    isolated("masquerade pruning", PROGRAMS, || {
        sh(FOREIGN);
        prune("net1", &[]).unwrap();
        let (gone, lives) = (pod("gone", "eth0"), pod("lives", "eth0"));
        masquerade(&lives).add(Backend::Iptables, &nets(&["10.7.0.3/24", "fd07::3/64"])).unwrap();
        Masquerade { network: "net2", attachment: &gone }.add(Backend::Iptables, &nets(&["10.8.0.2/24"])).unwrap();
        Masquerade { network: "net2", attachment: &gone }.add(Backend::Nftables, &nets(&["10.8.0.2/24"])).unwrap();
        masquerade(&lives).add(Backend::Nftables, &nets(&["10.7.0.3/24"])).unwrap();
        let before = sh("nft -s list ruleset");
        for backend in [Backend::Iptables, Backend::Nftables] {
            masquerade(&gone).add(backend, &nets(&["10.7.0.2/24", "fd07::2/64"])).unwrap();
        }
        assert_ne!(sh("nft -s list ruleset"), before);
        for _ in 0..2 {
            prune("net1", std::slice::from_ref(&lives)).unwrap();
            assert_eq!(sh("nft -s list ruleset"), before);
        }
        prune("net1", &[]).unwrap();
        let left = sh("nft list ruleset");
        assert!(!left.contains("10.7.0.3") && left.matches("10.8.0.2").count() == 2, "{left}");
        assert_eq!(left.matches("10.9.0.9").count(), 2);
    });
}

#[test]
fn eight_at_once_do_not_harm_each_other() {
    isolated("masquerade at once", PROGRAMS, || {
        for backend in [Backend::Iptables, Backend::Nftables] {
            at_once(8, move |number| {
                let pod = pod(&format!("c{number}"), "eth0");
                for round in 0..4 {
                    let addresses = nets(&[&format!("10.7.0.{}/24", number + 2), &format!("fd07::{}/64", number + 2)]);
                    masquerade(&pod).add(backend, &addresses).unwrap();
                    if number % 2 == 0 || round < 3 {
                        masquerade(&pod).remove(|_| false).unwrap();
                    }
                }
            });
            let rules = sh("nft list ruleset");
            for number in 0..8 {
                let (v4, v6) = (format!("saddr 10.7.0.{} ", number + 2), format!("saddr fd07::{} ", number + 2));
                let expected = if number % 2 == 0 { 0 } else { 1 };
                assert_eq!((rules.matches(&v4).count(), rules.matches(&v6).count()), (expected, expected), "{rules}");
            }
            sh("nft flush ruleset");
        }
    });
}

#[test]
fn the_world_sees_the_nodes_address_and_the_subnet_the_pods() {
    isolated("masquerade packets", &["nft", "ip", "iptables-restore", "ping", "sysctl"], || {
        // The pod's node is this namespace; the world and a neighbour in the pod's subnet are two others.
        sh("mkdir /run/netns && for ns in pod other world; do touch /run/netns/$ns && unshare --net=/run/netns/$ns true; done
            ip link add br0 type bridge && ip link set br0 up && ip addr add 10.7.0.1/24 dev br0 && ip addr add fd07::1/64 dev br0 nodad
            for ns in pod other; do ip link add v-$ns type veth peer name eth0 netns $ns && ip link set v-$ns master br0 up; done
            ip link add v-world type veth peer name eth0 netns world && ip link set v-world up
            ip addr add 192.0.2.1/24 dev v-world && ip addr add 2001:db8::1/64 dev v-world nodad
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip -n world addr add 192.0.2.9/24 dev eth0 && ip -n world addr add 2001:db8::9/64 dev eth0 nodad && ip -n world link set eth0 up
            i=2; for ns in pod other; do
                ip -n $ns addr add 10.7.0.$i/24 dev eth0 && ip -n $ns addr add fd07::$i/64 dev eth0 nodad && ip -n $ns link set eth0 up
                ip -n $ns route add default via 10.7.0.1 && ip -n $ns route add default via fd07::1
                i=3; done");
        // The world knows no way to pods, so an answer shows that it saw the node's address.
        let answers =
            |to: &str| sh(&format!("ip netns exec pod ping -c 1 -W 1 {to} >&2 && echo yes || echo no")) == "yes\n";
        let pod = pod("c1", "eth0");
        for (address, prefix, world, neighbour) in
            [("10.7.0.2", 24, "192.0.2.9", "10.7.0.3"), ("fd07::2", 64, "2001:db8::9", "fd07::3")]
        {
            for backend in [Backend::Iptables, Backend::Nftables] {
                assert!(!answers(world), "{world} can be reached without masquerade");
                masquerade(&pod).add(backend, &nets(&[&format!("{address}/{prefix}")])).unwrap();
                assert!(answers(world), "{world} with {backend:?}");
                assert!(answers(neighbour), "{neighbour} with {backend:?}");
                masquerade(&pod).remove(|_| false).unwrap();
            }
        }
    });
}
