//! From one mode to the other, and to none.

use twill_firewall::{Firewall, Mode, Plan};
use twill_model::Family;

use crate::namespace::{isolated, plan, settings, sh, writes};

const TOOLS: [&str; 4] = ["nft", "iptables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];

/// All rules of flannel's name, wherever they are.
fn everywhere() -> [String; 5] {
    let own = |text: String| text.lines().filter(|l| l.contains("FLANNEL")).collect::<Vec<_>>().join("\n");
    let listed = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]
        .map(|program| own(sh(&format!("{program}-save"))));
    let [a, b, c, d] = listed;
    [a, b, c, d, sh("nft list tables | grep flannel || true")]
}

#[test]
fn the_other_modes_rules_go_after_the_new_ones_are_in() {
    isolated("the_other_modes_rules_go", &TOOLS, || async {
        let plan = plan(&settings());
        // What flannel leaves in the old iptables, in the new one, and in nftables.
        sh("for ip in iptables ip6tables; do for kind in legacy nft; do
                $ip-$kind -t nat -N FLANNEL-POSTRTG; $ip-$kind -t nat -A POSTROUTING -j FLANNEL-POSTRTG
                $ip-$kind -N FLANNEL-FWD; $ip-$kind -A FORWARD -j FLANNEL-FWD; $ip-$kind -A FLANNEL-FWD -j ACCEPT
            done; done
            nft 'add table ip flannel-ipv4; add table ip6 flannel-ipv6; add chain ip flannel-ipv4 postrtg'");
        let mut firewall = Firewall::new(Mode::Nftables);
        let outcome = firewall.settle(&plan, &Family::ALL).await;
        assert_eq!(
            outcome.cleaned,
            [
                "IPv4 chains of flannel's in iptables (nft)",
                "IPv4 chains of flannel's in iptables (legacy)",
                "IPv6 chains of flannel's in iptables (nft)",
                "IPv6 chains of flannel's in iptables (legacy)",
            ]
        );
        let [a, b, c, d, tables] = everywhere();
        assert_eq!([a, b, c, d], [""; 4]);
        assert_eq!(tables, "table ip flannel-ipv4\ntable ip6 flannel-ipv6\n");

        let mut firewall = Firewall::new(Mode::Iptables);
        let outcome = firewall.settle(&plan, &Family::ALL).await;
        assert_eq!(outcome.cleaned, ["nftables table flannel-ipv4", "nftables table flannel-ipv6"]);
        let [v4, v6, c, d, tables] = everywhere();
        assert_eq!((v4.lines().count(), v6.lines().count()), (12, 12));
        assert_eq!([c, d, tables], [""; 3]);

        assert_eq!(Firewall::find_all().await.unwrap().len(), 2);
        assert_eq!(Firewall::remove_all().await.unwrap().len(), 2);
        assert_eq!(everywhere(), [""; 5]);
        assert!(Firewall::find_all().await.unwrap().is_empty());
    });
}

#[test]
fn the_iptables_that_others_use_is_used() {
    for (variant, other) in [("nft", "legacy"), ("legacy", "nft")] {
        isolated("the_iptables_that_others_use_is_used", &TOOLS, move || async move {
            // Only flannel's own, in the other one: kube-proxy's come before.
            sh(&format!(
                "iptables-{other} -t nat -N FLANNEL-POSTRTG; iptables-{variant} -t mangle -N KUBE-KUBELET-CANARY"
            ));
            let mut firewall = Firewall::new(Mode::Iptables);
            let outcome = firewall.settle(&plan(&settings()), &[Family::V4]).await;
            assert_eq!(firewall.variant().unwrap().to_string(), variant);
            assert_eq!(outcome.cleaned, [format!("IPv4 chains of flannel's in iptables ({other})")]);
            assert!(sh(&format!("iptables-{variant}-save")).contains("FLANNEL-FWD"));
            assert!(!sh(&format!("iptables-{other}-save")).contains("FLANNEL"));
        });
    }
}

#[test]
fn nothing_wanted_and_nothing_there_is_nothing_done() {
    isolated("nothing_wanted_and_nothing_there", &TOOLS, || async {
        for mode in [Mode::Iptables, Mode::Nftables] {
            assert_eq!(writes(&mut Firewall::new(mode), &Plan::nothing()).await, [false, false]);
        }
        assert_eq!(sh("nft list ruleset"), "");
    });
}
