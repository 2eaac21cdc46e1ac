use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use twill_cni::bridge::announce::announce;

use crate::namespace::{isolated, sh};

const PROGRAMS: &[&str] = &["ip", "ping"];
const V4: &str = "10.7.0.2";
const V6: &str = "fd07::2";
const NEW: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];

/// A bridge of the host with two pods. Everybody knows the first pod's addresses, and then it gets another MAC, as if
/// another pod had got its addresses.
fn reused() {
    sh("mkdir /run/netns && for ns in pod other; do touch /run/netns/$ns && unshare --net=/run/netns/$ns true; done
        ip link add br0 address 02:00:00:00:00:01 type bridge && ip link set br0 up
        ip addr add 10.7.0.1/24 dev br0 && ip addr add fd07::1/64 dev br0 nodad
        i=2; for ns in pod other; do
            ip link add v-$ns type veth peer name eth0 netns $ns && ip link set v-$ns master br0 up
            ip -n $ns link set eth0 address 02:00:00:00:00:a$i up
            ip -n $ns addr add 10.7.0.$i/24 dev eth0 && ip -n $ns addr add fd07::$i/64 dev eth0 nodad
            i=3; done");
    for address in [V4, V6] {
        assert_eq!(reach(address), [true, true]);
    }
    // Taking an IPv6 address away would be told to the neighbours.
    sh("ip netns exec pod sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1
        ip -n pod link set eth0 down && ip -n pod link set eth0 address 02:00:00:00:00:0b up");
}

/// Whether one packet from the host and one from the other pod is answered.
fn reach(address: &str) -> [bool; 2] {
    ["", "ip netns exec other "]
        .map(|place| sh(&format!("{place}ping -c 1 -W 1 {address} >&2 && echo yes || echo no")) == "yes\n")
}

/// The MACs that the host and the other pod believe in.
fn believed(address: &str) -> [String; 2] {
    ["br0", "eth0"].map(|link| {
        let place = if link == "br0" { "" } else { "-n other" };
        let entry = sh(&format!("ip {place} neigh show {address} dev {link}"));
        let mut words = entry.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or_default().to_owned()
    })
}

/// Announces from within the pod.
fn announced(addresses: &[&str]) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let announcing = thread::spawn(move || {
        let pod = File::open("/run/netns/pod").unwrap();
        move_into_link_name_space(pod.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let ifindex = sh("ip -o link show eth0").split(':').next().unwrap().parse().unwrap();
        announce(ifindex, NEW, &addresses).unwrap();
        assert!(announce(ifindex + 99, NEW, &addresses).unwrap_err().to_string().contains(&addresses[0].to_string()));
    });
    announcing.join().unwrap();
}

#[test]
fn neighbours_that_know_an_old_mac_learn_the_new_one() {
    isolated("announcements", PROGRAMS, || {
        reused();
        for address in [V4, V6] {
            assert_eq!(reach(address), [false, false], "{address} is not known by an old MAC");
            assert_eq!(believed(address), ["02:00:00:00:00:a2"; 2]);
        }
        announced(&[V4, V6]);
        for address in [V4, V6] {
            assert_eq!(believed(address), ["02:00:00:00:00:0b"; 2], "{address}");
            assert_eq!(reach(address), [true, true], "{address}");
        }
    });
}

#[test]
fn an_address_in_doubt_is_not_announced() {
    isolated("announcements during DAD", PROGRAMS, || {
        reused();
        // With so many probes the kernel is not done before this test is.
        sh("ip netns exec pod sysctl -qw net.ipv6.conf.eth0.dad_transmits=60 net.ipv6.conf.eth0.accept_dad=1
            ip -n pod addr del fd07::2/64 dev eth0 && ip -n pod addr add fd07::2/64 dev eth0");
        assert!(sh("ip -n pod -6 addr show dev eth0 tentative").contains(V6));
        announced(&[V4, V6]);
        assert_eq!(believed(V4), ["02:00:00:00:00:0b"; 2]);
        assert_eq!(believed(V6), ["02:00:00:00:00:a2"; 2]);
    });
}
