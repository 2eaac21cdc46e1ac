use twill_cni::Attachment;
use twill_cni::bridge::spoof;

use crate::namespace::{at_once, isolated, sh};

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// As `nft list ruleset` shows what the reference plugin has made.
const RULES: &str = r#"table bridge nat {
	chain PREROUTING {
		type filter hook prerouting priority dstnat; policy accept;
		iifname "veth0" jump cni-br-iface-c1-eth0 comment "macspoofchk-c1-eth0"
	}

	chain cni-br-iface-c1-eth0 {
		jump cni-br-iface-c1-eth0-mac comment "macspoofchk-c1-eth0"
	}

	chain cni-br-iface-c1-eth0-mac {
		ether saddr 02:00:00:00:00:0a return comment "macspoofchk-c1-eth0"
		drop comment "macspoofchk-c1-eth0"
	}
}
"#;

fn pod(number: usize) -> Attachment {
    Attachment::new(&format!("c{number}"), "eth0").unwrap()
}

#[test]
fn the_rules_are_those_of_the_reference_however_often_they_are_added() {
    isolated("spoof rules", &["nft"], || {
        for _ in 0..2 {
            spoof::add(&pod(1), "veth0", MAC).unwrap();
            assert_eq!(sh("nft list ruleset"), RULES);
        }
        // The pod is attached again before anybody has removed what was there.
        spoof::add(&pod(1), "veth1", [2, 0, 0, 0, 0, 0xb]).unwrap();
        let expected = RULES.replace("veth0", "veth1").replace("00:0a", "00:0b");
        assert_eq!(sh("nft list ruleset"), expected);
    });
}

#[test]
fn nothing_but_the_own_rules_goes_and_nothing_there_is_success() {
    isolated("spoof removal", &["nft"], || {
        spoof::remove(&pod(1)).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
        spoof::add(&pod(1), "veth0", MAC).unwrap();
        sh("nft add rule bridge nat PREROUTING iifname veth9 counter comment mine");
        let before = sh("nft list ruleset");
        spoof::add(&pod(2), "veth2", MAC).unwrap();
        spoof::remove(&pod(2)).unwrap();
        spoof::remove(&pod(2)).unwrap();
        assert_eq!(sh("nft list ruleset"), before);
        spoof::remove(&pod(1)).unwrap();
        let left = sh("nft list ruleset");
        assert!(left.contains("comment \"mine\"") && !left.contains("c1"), "{left}");
    });
}

#[test]
fn what_the_kernel_drops_is_what_has_another_mac() {
    isolated("spoof packets", &["nft", "ip", "ping"], || {
        sh("ip link add br0 type bridge && ip link set br0 up && ip addr add 10.7.0.1/24 dev br0
            ip link add veth0 type veth peer name pod0 && ip link set veth0 master br0 up
            mkdir /run/netns && touch /run/netns/pod && unshare --net=/run/netns/pod true && ip link set pod0 netns pod
            ip -n pod addr add 10.7.0.2/24 dev pod0 && ip -n pod link set pod0 address 02:00:00:00:00:0a up");
        spoof::add(&pod(1), "veth0", MAC).unwrap();
        let pings = || sh("ip netns exec pod ping -c 1 -W 1 10.7.0.1 >&2 && echo yes || echo no") == "yes\n";
        assert!(pings());
        sh("ip -n pod link set pod0 down && ip -n pod link set pod0 address 02:00:00:00:00:0b up");
        assert!(!pings());
        spoof::remove(&pod(1)).unwrap();
        assert!(pings());
    });
}

#[test]
fn eight_at_once_do_not_harm_each_other() {
    isolated("spoof at once", &["nft"], || {
        at_once(8, |number| {
            for _ in 0..20 {
                spoof::add(&pod(number), &format!("veth{number}"), MAC).unwrap();
                if number % 2 == 0 {
                    spoof::remove(&pod(number)).unwrap();
                }
            }
        });
        let rules = sh("nft list ruleset");
        for number in 0..8 {
            let jumps = rules.matches(&format!("jump cni-br-iface-c{number}-eth0 ")).count();
            assert_eq!(jumps, number % 2, "{rules}");
        }
    });
}
