//! nftables, as the program `nft` sees what was written without it.

use std::time::Duration;

use twill_firewall::nftables::{Touched, Watch};
use twill_firewall::{Firewall, Mode};

use crate::namespace::{FAMILIES, Words, isolated, plan, settings, sh, writes};

const TABLE: &str = "\
table IP flannel-FAM {
\tcomment \"rules for flannel-FAM\"
\tchain postrtg {
\t\tcomment \"chain to manage traffic masquerading by flannel\"
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tmeta mark & 0x00004000 == 0x00004000 return
\t\tIP saddr OWN IP daddr NET return
\t\tIP saddr NET IP daddr OWN return
\t\tIP saddr != NET IP daddr OWN return
\t\tIP saddr NET IP daddr != MULTICAST masquerade fully-random
\t\tIP saddr != NET IP daddr NET masquerade fully-random
\t}

\tchain forward {
\t\tcomment \"chain to accept flannel traffic\"
\t\ttype filter hook forward priority filter; policy accept;
\t\tIP saddr NET accept
\t\tIP daddr NET accept
\t}
}
";

fn name(words: &Words) -> &'static str {
    if words.nft == "ip" { "flannel-ipv4" } else { "flannel-ipv6" }
}

fn wanted(words: &Words) -> String {
    words.fill(&TABLE.replace("flannel-FAM", name(words)))
}

/// flannel's own text: its mark without a mask, and its fourth rule.
fn flannels(words: &Words) -> String {
    let text = TABLE
        .replace("meta mark & 0x00004000 == 0x00004000", "meta mark 0x00004000")
        .replace("saddr != NET IP daddr OWN", "saddr != OWN IP daddr NET");
    words.fill(&text.replace("flannel-FAM", name(words)))
}

fn listed(words: &Words) -> String {
    sh(&format!("nft list table {} {}", words.nft, name(words)))
}

#[test]
fn rules_are_as_nft_shows_them() {
    isolated("rules_are_as_nft_shows_them", &["nft"], || async {
        let mut firewall = Firewall::new(Mode::Nftables);
        assert_eq!(writes(&mut firewall, &plan(&settings())).await, [true, true]);
        for words in &FAMILIES {
            assert_eq!(listed(words), wanted(words));
        }
        assert_eq!(writes(&mut firewall, &plan(&settings())).await, [false, false]);
        assert_eq!(writes(&mut Firewall::new(Mode::Nftables), &plan(&settings())).await, [false, false], "a restart");
    });
}

#[test]
fn flannels_exact_text_on_request_and_its_tables_are_adopted() {
    isolated("flannels_exact_text_on_request", &["nft"], || async {
        for words in &FAMILIES {
            sh(&format!("nft -f - <<'END'\n{}END\n", flannels(words)));
        }
        let mut compatible = settings();
        compatible.masquerade.as_mut().unwrap().flannels_text = true;
        let mut firewall = Firewall::new(Mode::Nftables);
        writes(&mut firewall, &plan(&compatible)).await;
        for words in &FAMILIES {
            assert_eq!(listed(words), flannels(words));
        }
        assert_eq!(writes(&mut firewall, &plan(&settings())).await, [true, true]);
        for words in &FAMILIES {
            assert_eq!(listed(words), wanted(words));
        }
    });
}

#[test]
fn other_lengths_of_prefixes_and_switches() {
    isolated("other_lengths_of_prefixes", &["nft"], || async {
        let mut with = settings();
        let masquerade = with.masquerade.as_mut().unwrap();
        masquerade.random_fully = false;
        masquerade.except = ["0.0.0.0/0", "192.0.2.7/32", "10.96.0.0/11", "2001:db8::/33", "::1/128"]
            .map(|net| net.parse().unwrap())
            .to_vec();
        with.forward = false;
        let mut firewall = Firewall::new(Mode::Nftables);
        writes(&mut firewall, &plan(&settings())).await;
        writes(&mut firewall, &plan(&with)).await;
        let [v4, v6] = FAMILIES.each_ref().map(listed);
        for rule in [
            "\t\tip saddr 10.244.0.0/16 return\n",
            "\t\tip saddr 10.244.0.0/16 ip daddr 192.0.2.7 return\n",
            "\t\tip saddr 10.244.0.0/16 ip daddr 10.96.0.0/11 return\n",
            "\t\tip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade\n",
        ] {
            assert!(v4.contains(rule), "{v4}");
        }
        for rule in ["ip6 daddr 2001:db8::/33 return\n", "ip6 daddr ::1 return\n"] {
            assert!(v6.contains(rule), "{v6}");
        }
        assert!(!v4.contains("chain forward"), "{v4}");
        assert_eq!(writes(&mut firewall, &plan(&with)).await, [false, false]);
    });
}

const DAMAGE: [&str; 8] = [
    "delete table IP TABLE",
    "flush table IP TABLE",
    "flush chain IP TABLE forward",
    "add rule IP TABLE postrtg counter",
    "insert rule IP TABLE postrtg return",
    "add rule IP TABLE forward IP saddr NET accept",
    "add chain IP TABLE forward { policy drop; }",
    "delete chain IP TABLE postrtg; add chain IP TABLE postrtg { type filter hook input priority 0; }",
];

/// A table's chains, in any order: nft lists them as they were made.
fn chains(table: &str) -> Vec<&str> {
    let mut chains: Vec<&str> =
        table.split("\tchain ").map(|chain| chain.trim_end_matches(|c: char| c == '}' || c.is_whitespace())).collect();
    chains.sort_unstable();
    chains
}

/// Waits until the watch tells that.
async fn told(watch: &mut Watch, wanted: Touched) {
    let telling = async { while watch.next().await.unwrap() != wanted {} };
    tokio::time::timeout(Duration::from_secs(5), telling).await.unwrap_or_else(|_| panic!("{wanted:?} was not told"));
}

#[test]
fn whatever_is_done_to_them_is_told_and_they_come_back() {
    isolated("whatever_is_done_to_them_is_told", &["nft"], || async {
        let mut firewall = Firewall::new(Mode::Nftables);
        let plan = plan(&settings());
        writes(&mut firewall, &plan).await;
        sh("nft 'add table ip others; add chain ip others c; add rule ip others c accept'");
        let others = sh("nft list table ip others");
        let mut watch = Watch::open().unwrap();
        for damage in DAMAGE {
            for words in &FAMILIES {
                let damage = words.fill(&damage.replace("TABLE", name(words)));
                let flush = if damage.starts_with("delete chain") { "flush chain IP TABLE postrtg;" } else { "" };
                let flush = words.fill(&flush.replace("TABLE", name(words)));
                sh(&format!("nft '{flush}{damage}'"));
                told(&mut watch, Touched::Nftables(words.family)).await;
            }
            assert_eq!(writes(&mut firewall, &plan).await, [true, true], "{damage}");
            for words in &FAMILIES {
                assert_eq!(chains(&listed(words)), chains(&wanted(words)), "{damage}");
            }
            // The notifications of the repair.
            while let Ok(touched) = tokio::time::timeout(Duration::from_millis(50), watch.next()).await {
                assert!(matches!(touched.unwrap(), Touched::Nftables(_)));
            }
        }
        assert_eq!(sh("nft list table ip others"), others);
    });
}

#[test]
fn what_others_do_elsewhere_is_not_told() {
    isolated("what_others_do_elsewhere_is_not_told", &["nft", "iptables-nft"], || async {
        let mut watch = Watch::open().unwrap();
        sh(
            "nft 'add table ip others; add chain ip others c; add rule ip others c accept'
            iptables-nft -t nat -N KUBE-X; iptables-nft -t nat -A POSTROUTING -j KUBE-X; iptables-nft -t nat -F KUBE-X",
        );
        let quiet = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        sh("iptables-nft -t nat -D POSTROUTING -j KUBE-X");
        let touched = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
        assert_eq!(touched, Touched::Iptables(twill_model::Family::V4));
    });
}
